"""프로세스 여럿: 검증은 한 장씩, 폴더는 하나, 하나가 죽으면 모두 멈추고 이어 간다.

가중치를 나누어 들어도 손실과 파일은 하나일 때와 같다.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from given import ENV

from cifar_lit.model import LitModel
from cifar_lit.parts.checkpoints import read_checkpoint

BIN = Path(sys.executable).parent
TWO = (
    'fit --data.source photos --data.batch_size 4 --data.val_size 7 '
    '--data.flip random --trainer.max_epochs 2 --trainer.log_every_n_steps 2 '
    '--last.steps 3 --trainer.accelerator cpu --trainer.devices 2'
)


def start(words, place, log):
    variables = {**ENV, 'WANDB_MODE': 'disabled', 'OMP_NUM_THREADS': '1'}
    with open(place / log, 'w') as file:
        return subprocess.Popen(
            words, cwd=place, env=variables, stdout=file, stderr=subprocess.STDOUT
        )


def children(number):
    "프로세스가 낳은 파이썬 프로세스의 번호"
    listed = subprocess.run(
        ['ps', '-o', 'pid=,args=', '--ppid', str(number)],
        capture_output=True,
        text=True,
    ).stdout
    rows = (line.split(maxsplit=1) for line in listed.splitlines())
    return [int(pid) for pid, words in rows if 'cifar-lit' in words]


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def equal_runs(run, whole):
    names = ('last.ckpt', 'best.ckpt')
    for name in names:
        pair = [read_checkpoint(at / 'checkpoints' / name) for at in (run, whole)]
        assert same(*(saved['state_dict'] for saved in pair))
        assert pair[0]['global_step'] == pair[1]['global_step']
    texts = [(at / 'metrics.csv').read_text() for at in (run, whole)]
    assert texts[0] == texts[1]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "두 프로세스로 멈추지 않고 학습한 실행"
    from given import toy_album

    place = tmp_path_factory.mktemp('several')
    toy_album(place / 'photos')
    command = [BIN / 'cifar-lit', *TWO.split(), '--run_dir', 'whole']
    done = start(command, place, 'whole.log')
    assert done.wait(240) == 0, (place / 'whole.log').read_text()
    return place / 'whole'


def rows_of(run, name):
    lines = (run / 'metrics.csv').read_text().splitlines()
    at = lines[0].split(',').index(name)
    return [float(line.split(',')[at]) for line in lines[1:] if line.split(',')[at]]


def test_each_validation_picture_counts_once(whole):
    accuracies = rows_of(whole, 'val_acc')
    assert len(accuracies) == 2
    for accuracy in accuracies:  # 일곱 장이므로 7분의 몇이다.
        assert abs(accuracy * 7 - round(accuracy * 7)) < 1e-5


def test_a_killed_process_ends_all_and_resume_goes_on(whole):
    place = whole.parent
    command = [BIN / 'cifar-lit', *TWO.split(), '--run_dir', 'part']
    training = start(command, place, 'part.log')
    last = place / 'part/checkpoints/last.ckpt'
    while not last.exists() and training.poll() is None:
        time.sleep(0.02)
    [child] = children(training.pid)
    os.kill(child, signal.SIGKILL)
    assert training.wait(60) != 0
    again = start([BIN / 'cifar-lit', 'resume', 'part'], place, 'again.log')
    assert again.wait(240) == 0, (place / 'again.log').read_text()
    equal_runs(place / 'part', whole)


def test_torchrun_restarts_in_one_folder(whole):
    place = whole.parent
    options = '--standalone --nproc_per_node 2 --max-restarts 2'.split()
    words = [BIN / 'torchrun', *options, BIN / 'cifar-lit', *TWO.split()]
    training = start(words, place, 'torchrun.log')
    while not list(place.glob('runs/*/checkpoints/last.ckpt')):
        assert training.poll() is None, (place / 'torchrun.log').read_text()
        time.sleep(0.02)
    os.kill(children(training.pid)[-1], signal.SIGKILL)
    assert training.wait(300) == 0, (place / 'torchrun.log').read_text()[-3000:]
    [run] = (place / 'runs').iterdir()
    equal_runs(run, whole)


def train_as(place, world_size, name, *options, precision='64-true'):
    "한 스텝에 32장씩 20스텝. 스텝마다의 손실. 32비트이면 반올림의 차이가 커진다."
    shared = (
        '--data.source toy --data.val_size 100 --data.flip random '
        f'--trainer.accelerator cpu --trainer.precision {precision} '
        '--trainer.max_epochs 1 '
        '--trainer.limit_train_batches 20 --trainer.log_every_n_steps 1'
    ).split()
    ours = ['--data.batch_size', str(32 // world_size), '--run_dir', name]
    ours += ['--trainer.devices', str(world_size), *options]
    variables = {**ENV, 'WANDB_MODE': 'offline', 'OMP_NUM_THREADS': '1'}
    words = [BIN / 'cifar-lit', 'fit', *shared, *ours]
    done = subprocess.run(
        words, cwd=place, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.array(rows_of(place / name, 'train_loss_step'))


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    place = tmp_path_factory.mktemp('alone')
    return train_as(place, 1, 'run')


@pytest.mark.parametrize('world_size', [2, 4])
def test_the_loss_curve_is_that_of_one_process(alone, world_size, tmp_path):
    losses = train_as(tmp_path, world_size, 'run')
    assert len(losses) == len(alone) == 20
    assert abs(losses - alone).max() < 1e-5
    assert len(list(tmp_path.glob('run/wandb/offline-run-*'))) == 1
    assert len(list(tmp_path.glob('run/examples-step=*.png'))) == 1


@pytest.mark.parametrize('epochs', [0, 1])
def test_the_first_bias_rests_in_two_processes_too(epochs, tmp_path):
    quick = '--recipe', 'quick', '--model.whitening_epochs', str(epochs)
    losses = train_as(tmp_path, 2, 'run', *quick, precision='32-true')
    assert len(losses) == 20  # 구하지 않는 기울기를 기다리다 멈추지 않는다.
    state = read_checkpoint(tmp_path / 'run/checkpoints/last.ckpt')['state_dict']
    assert state['net.whiten.bias'].any() == bool(epochs)


SHARDED = """
import lightning.pytorch as pl
from lightning.pytorch.strategies import ModelParallelStrategy
from cifar_lit.data import CIFAR10DataModule
from cifar_lit.parts.metrics import MetricsLogger
from cifar_lit.parts.resume import BestCheckpoint, LastCheckpoint, Resumable
from cifar_lit.parts.saves import safe_plugins
from cifar_lit.scale import ShardedModel

if __name__ == '__main__':
    pl.seed_everything(42)
    dm = CIFAR10DataModule(16, source='toy', val_size=100, flip='random')
    model = ShardedModel(dm.input_shape, dm.num_classes, fused=True)
    best = {'dirpath': 'run/checkpoints', 'monitor': 'val_loss', 'filename': 'best'}
    trainer = pl.Trainer(
        accelerator='cpu', devices=2, max_epochs=1, limit_train_batches=20,
        strategy=ModelParallelStrategy(2, 1, save_distributed_checkpoint=False),
        logger=MetricsLogger('run'), log_every_n_steps=1, plugins=safe_plugins(),
        callbacks=[Resumable(), LastCheckpoint(), BestCheckpoint(**best)],
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(model, dm)
    adam = [v for s in trainer.optimizers[0].state.values() for v in s.values()]
    kept = list(model.parameters()), [v for v in adam if v.dim()]
    sizes = [sum(each.to_local().nbytes for each in some) for some in kept]
    print(f'rank {trainer.global_rank}: {sizes}', flush=True)
"""


def nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)


def test_shards_train_as_one_process_and_write_one_file(tmp_path):
    # fully_shard는 channels_last를 받지 않는다.
    options = '--model.channels_last', 'false'
    alone = train_as(tmp_path, 1, 'alone', *options, precision='32-true')
    (tmp_path / 'sharded.py').write_text(SHARDED)
    done = start([sys.executable, 'sharded.py'], tmp_path, 'log')
    assert done.wait(240) == 0, (tmp_path / 'log').read_text()[-3000:]
    losses = np.array(rows_of(tmp_path / 'run', 'train_loss_step'))
    assert len(losses) == len(alone) == 20
    gap = abs(losses - alone)  # FSDP2는 64비트로 학습하지 못한다.
    assert gap[:5].max() < 1e-5 and gap.max() < 1e-2

    folder = tmp_path / 'run/checkpoints'
    saved = read_checkpoint(folder / 'last.ckpt')
    model = LitModel.load_from_checkpoint(folder / 'best.ckpt', map_location='cpu')
    assert same(model.state_dict(), saved['state_dict'])
    states = saved['optimizer_states'][0]['state'].values()
    adam = [value for state in states for value in state.values() if value.dim()]
    half = [nbytes(model.parameters()) // 2, nbytes(adam) // 2]
    told = (tmp_path / 'log').read_text()
    assert all(f'rank {rank}: {half}' in told for rank in (0, 1))


def test_the_command_trains_and_resumes_shards(tmp_path):
    shards = (
        '--model_class cifar_lit.scale.ShardedModel '
        '--trainer.strategy ModelParallelStrategy '
        '--trainer.strategy.data_parallel_size 2 '
        '--trainer.strategy.tensor_parallel_size 1'
    ).split()
    narrow = {'precision': '32-true'}  # FSDP2는 64비트로 학습하지 못한다.
    train_as(tmp_path, 2, 'part', *shards, **narrow)
    train_as(tmp_path, 2, 'whole', *shards, '--trainer.max_epochs', '2', **narrow)
    words = [BIN / 'cifar-lit', 'resume', 'part', '--trainer.max_epochs', '2']
    again = start(words, tmp_path, 'again.log')
    assert again.wait(240) == 0, (tmp_path / 'again.log').read_text()[-3000:]
    equal_runs(tmp_path / 'part', tmp_path / 'whole')


DISAGREE = """
import os, sys
import lightning.pytorch as pl
from cifar_lit.data import CIFAR10DataModule
from cifar_lit.model import LitModel
from cifar_lit.parts.files import InputError

rank = int(os.environ['RANK'])
wrong = {'seed': {'seed': 42 + rank}, 'images': {'val_size': 100 + rank}}
batch_size = 8 + rank * (sys.argv[1] == 'batch')
dm = CIFAR10DataModule(batch_size, source='toy', **wrong.get(sys.argv[1], {}))
if sys.argv[1] == 'both seeds':
    pl.seed_everything(42 + rank)
    dm = CIFAR10DataModule(8, source='toy', seed=42 + rank)
if sys.argv[1] == 'data':
    images, labels = dm.source.load('train')
    dm.source.load = lambda split: (images, labels.roll(rank))
off = ('logger', 'enable_checkpointing', 'enable_progress_bar')
trainer = pl.Trainer(
    max_steps=1, devices=2, accelerator='cpu', **dict.fromkeys(off, False)
)
try:
    trainer.fit(LitModel((3, 32, 32), 10), dm)
except InputError as error:
    print(f'rank {rank}: {error}', flush=True)
"""


@pytest.mark.parametrize(
    ('what', 'named'),
    [
        ('seed', '시드'),
        ('images', '이미지 수'),
        ('data', '데이터'),
        ('batch', '배치 크기'),
        ('both seeds', 'seed_everything'),
    ],
)
def test_ranks_that_disagree_are_named(what, named, tmp_path):
    script = tmp_path / 'disagree.py'
    script.write_text(DISAGREE)
    words = [BIN / 'torchrun', '--standalone', '--nproc_per_node', '2', script, what]
    done = start(words, tmp_path, 'log')
    assert done.wait(120) == 0, (tmp_path / 'log').read_text()[-3000:]
    told = (tmp_path / 'log').read_text()
    for rank in (0, 1):
        assert f'rank {rank}: 프로세스마다 다른 값이 있습니다. {named}: 0번' in told
