"미룬 모듈(parts/startup)이 미루지 않은 것과 똑같이 쓰이는가. 갈래마다 새 프로세스이다."

import os
import subprocess
import sys
from pathlib import Path

import pytest

# 미루고 Lightning을 부른 프로세스에서 갈라져, 저마다 아래의 하나를 해 본다.
CHILDREN = {
    'accuracy': 'from torchmetrics import Accuracy; Accuracy("binary")',
    'functional': """
from torchmetrics.functional import accuracy
one = torch.tensor([1])
assert accuracy(one, one, 'binary') == 1
""",
    'image': 'from torchmetrics.image import PeakSignalNoiseRatio',
    'detection': 'from torchmetrics.detection import MeanAveragePrecision',
    'collection': """
import torchmetrics
from torchmetrics import MetricCollection
from torchmetrics.collections import MetricCollection as same
assert MetricCollection is same is torchmetrics.MetricCollection
""",
    'plot': """
import matplotlib; matplotlib.use('svg')
from torchmetrics.classification import MulticlassAccuracy
metric = MulticlassAccuracy(3)
metric.update(torch.eye(3), torch.arange(3))
figure, axes = metric.plot()
assert isinstance(figure, matplotlib.figure.Figure)
""",
    'compile': """
from lightning.fabric.wrappers import OptimizedModule
net = torch.nn.Linear(2, 2)
assert not isinstance(net, OptimizedModule)
made, x = torch.compile(net, backend='eager'), torch.ones(1, 2)
assert isinstance(made, OptimizedModule) and torch.equal(made(x), net(x))
""",
    'compile after training': """
net = torch.nn.Linear(2, 2)
optimizer = torch.optim.Adam(net.parameters())
def step(x):
    net(x).sum().backward()
    optimizer.step()
step(torch.ones(1, 2))
torch.compile(step, backend='eager')(torch.ones(1, 2))
steps = [state['step'].item() for state in optimizer.state.values()]
assert steps == [2, 2], steps
""",
    'part of the compiler': """
from torch._dynamo.utils import counters
import torch._dynamo
assert torch._dynamo.utils is sys.modules['torch._dynamo.utils']
assert torch._dynamo.utils.counters is counters
assert torch._dynamo.utils.__spec__.name == 'torch._dynamo.utils'
""",
    'launch': """
from cifar_lit.parts.startup import import_wandb
import_wandb()
from wandb.sdk.launch import launch_add, manage_config_file
""",
}

PARENT = """
import os, sys, traceback
from cifar_lit.parts.startup import PostponedModule, postpone_unused
postpone_unused()
import torch, lightning.pytorch
torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])
late = ('torch._dynamo', 'torchmetrics', 'torchmetrics.functional')
loaded = [name for name in late if not isinstance(sys.modules[name], PostponedModule)]
print('loaded', *loaded, *{'torchvision', 'scipy', 'matplotlib'} & {*sys.modules})
for line in sys.stdin.read().split('\\0'):
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            exec(line, globals())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print('rc', os.wait()[1])
"""


@pytest.fixture(scope='module')
def told():
    if not hasattr(os, 'fork'):
        pytest.skip('갈라질 수 없는 운영 체제')
    done = subprocess.run(
        [sys.executable, '-c', PARENT],
        input='\0'.join(CHILDREN.values()),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_nothing_unused_is_loaded(told):
    assert told[0][0] == 'loaded'


@pytest.mark.parametrize('name', CHILDREN)
def test_used_later(told, name):
    lines, errors = told
    assert lines[1 + [*CHILDREN].index(name)] == 'rc 0', errors


def test_command_imports_little(tmp_path):
    program = """
import sys
from lightning.pytorch.callbacks import Callback
from cifar_lit import cli

class Tell(Callback):
    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        heavy = {'torchvision', 'scipy', 'pandas', 'sympy', 'matplotlib', 'sklearn'}
        print('heavy', *heavy & {*sys.modules}, flush=True)

"""
    program += "cli.main(['fit', '--data.source', 'toy', '--trainer.fast_dev_run', "
    program += "'true', '--trainer.callbacks+=__main__.Tell', '--run_dir', 'run'])"
    program = program.replace(
        'from lightning',
        'from cifar_lit.parts.startup import postpone_unused\n'
        'postpone_unused()\nfrom lightning',
        1,
    )
    path = tmp_path / 'program.py'
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'WANDB_MODE': 'offline'},
    )
    assert 'heavy' in done.stdout.splitlines(), done.stdout + done.stderr
