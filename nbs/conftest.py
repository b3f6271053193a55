"""시험하는 노트북의 커널과는 TCP의 포트가 아니라 파일(IPC)로 이야기한다.

jupyter_client는 빈 포트를 골라 닫아 두고 커널이 나중에 다시 여는데, 나란히 도는
시험이 그사이 그 포트를 쓰면 커널이 뜨지 못한다.
"""

import tempfile
from pathlib import Path

import nbval.kernel
from jupyter_client.manager import KernelManager

_sockets = tempfile.TemporaryDirectory()


def file_kernel_manager(**options):
    folder = tempfile.mkdtemp(dir=_sockets.name)
    return KernelManager(transport='ipc', ip=str(Path(folder, 'ipc')), **options)


nbval.kernel.KernelManager = file_kernel_manager
