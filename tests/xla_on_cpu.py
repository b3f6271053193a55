"""TPU가 하나 있다고 답하며 `cifar-lit`을 부른다. 계산은 PJRT의 CPU가 한다.

PJRT_DEVICE=CPU python tests/xla_on_cpu.py fit --trainer.accelerator tpu
"""

# torch_xla가 루트 로거에 먼저 손대면 Lightning의 기록이 두 번 나온다.
from lightning.pytorch.accelerators import XLAAccelerator
from torch_xla._internal import tpu

from cifar_lit.cli import main

tpu.num_available_devices = lambda: 1
assert XLAAccelerator.is_available()

if __name__ == '__main__':
    main()
