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
assert torchmetrics.__version__ and not hasattr(torchmetrics, '__wrapped__')
assert isinstance(torchmetrics, PostponedModule)
torchmetrics.Accuracy
assert not isinstance(torchmetrics, PostponedModule)
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
    'disable': """
import torch.compiler
@torch.compiler.disable(recursive=False)
def f(x): return x + 1
assert f(1) == 2
class Net(torch.nn.Linear): pass
assert issubclass(torch.compiler.disable(Net), torch.nn.Module)
""",
    'star': """
names = {}
exec('from torchmetrics import *', names)
assert 'Accuracy' in names
""",
    'two threads': """
from threading import Thread
found = []
def find():
    found.append(sys.modules['torchmetrics.functional'].accuracy)
threads = [Thread(target=find) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 4, found
""",
    'a failed import is told again': """
from importlib.util import spec_from_loader
from importlib.abc import Loader
class Broken(Loader):
    def create_module(self, spec): return None
    def exec_module(self, module): raise OSError('disk')
import cifar_lit.parts.startup as startup
startup.find_spec = lambda name: spec_from_loader(name, Broken())
startup.postpone('broken')
for _ in range(2):
    try:
        sys.modules['broken'].something
    except OSError as error:
        assert str(error) == 'disk'
    else:
        raise AssertionError
""",
    'part of the compiler': """
from torch._dynamo.utils import counters
import torch._dynamo
assert torch._dynamo.utils is sys.modules['torch._dynamo.utils']
assert torch._dynamo.utils.counters is counters
assert torch._dynamo.utils.__spec__.name == 'torch._dynamo.utils'
""",
    'one finder, whose caches are emptied': """
import importlib
postpone_unused()
importlib.invalidate_caches()
kinds = [type(finder).__name__ for finder in sys.meta_path]
assert kinds.count('_WholeFirst') == 1, kinds
""",
    'flops': """
from lightning.pytorch.utilities.model_summary import ModelSummary
from torch.utils.flop_counter import FlopCounterMode
from lightning.pytorch import LightningModule
class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.example_input_array = torch.nn.Linear(3, 5), torch.ones(1, 3)
    def forward(self, x): return self.layer(x)
assert ModelSummary(Net()).total_flops == 30
with FlopCounterMode(display=False) as counter: torch.ones(2, 3) @ torch.ones(3, 4)
assert counter.get_total_flops() == 48
class Mine(FlopCounterMode): pass
assert isinstance(Mine(), FlopCounterMode) and isinstance(counter, FlopCounterMode)
assert not isinstance(torch, FlopCounterMode)
""",
    'pandas': """
from cifar_lit.parts.startup import import_wandb
ask = import_wandb().util.is_pandas_data_frame
assert not ask([1]) and 'pandas' not in sys.modules
import pandas
assert ask(pandas.DataFrame()) and not ask([1])
""",
    'launch': """
from cifar_lit.parts.startup import import_wandb
import_wandb()
assert isinstance(sys.modules['wandb.sdk.launch'], PostponedModule)
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
late += ('torch.utils.flop_counter',)
loaded = [name for name in late if not isinstance(sys.modules[name], PostponedModule)]
heavy = {'torchvision', 'scipy', 'matplotlib', 'triton'}
print('loaded', *loaded, *heavy & {*sys.modules})
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


TELL = """
import sys
from lightning.pytorch.callbacks import Callback
from cifar_lit.parts.startup import PostponedModule

class Tell(Callback):
    def on_test_end(self, trainer, model):  # 그림까지 남긴 다음이다.
        heavy = {'torchvision', 'scipy', 'sympy', 'sklearn', 'triton'}
        heavy |= {'pandas', 'matplotlib'}
        late = ('torch._dynamo', 'torchmetrics', 'torchmetrics.functional')
        early = [n for n in late if not isinstance(sys.modules[n], PostponedModule)]
        print('heavy', *heavy & {*sys.modules}, *early, flush=True)
"""


def test_command_imports_little(tmp_path):
    (tmp_path / 'tell.py').write_text(TELL)
    command = Path(sys.executable).with_name('cifar-lit')
    words = '--recipe quick --data.source toy --run_dir run'.split()
    words += ['--trainer.limit_train_batches', '2']
    done = subprocess.run(
        [command, 'tutorial', *words, '--trainer.callbacks+=tell.Tell'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'WANDB_MODE': 'offline', 'PYTHONPATH': str(tmp_path)},
    )
    assert 'heavy' in done.stdout.splitlines(), done.stdout + done.stderr


LEAVE = """
import os, sys
from cifar_lit.parts.commands import without_gc
with without_gc(): pass
class Cycle:
    def __init__(self): self.me = self
    def __del__(self, write=os.write): write(1, b'cleaned')
cycle = Cycle()
"""


@pytest.mark.parametrize(
    'more, told', [('', ''), ("sys.modules['triton._C.libtriton'] = None", 'cleaned')]
)
def test_nothing_is_cleaned_at_the_end_without_triton(more, told):
    command = [sys.executable, '-c', LEAVE + more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == told
