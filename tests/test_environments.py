"""노트북마다 빈 폴더, 새 커널, 다른 버전에서: Colab과 가장 낮은 버전.

TPU의 소프트웨어로는 명령을 돌린다. 네트워크와 몇 분이 들어, 부를 때만 돈다.

CIFAR_LIT_ENVIRONMENTS=colab,lowest,tpu python -m pytest tests/test_environments.py
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from given import ENV
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from test_several import equal_runs, rows_of, same

from cifar_lit.model import LitModel
from cifar_lit.parts.checkpoints import read_checkpoint

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / 'nbs').glob('*.ipynb'))
PARTS = sorted((ROOT / 'nbs/parts').glob('*.ipynb'))
ASKED = os.environ.get('CIFAR_LIT_ENVIRONMENTS', '').split(',')
# 2026년 8월의 Colab에 깔려 있는 것. lightning, torchmetrics, jsonargparse는 없다.
COLAB = [
    'torch==2.11.*',
    'torchvision==0.26.*',
    'numpy==2.1.*',
    'wandb==0.31.0',
    'ipykernel==6.17.*',
    'matplotlib',
    'scipy',
    'requests',
    'tqdm',
    'pandas',
]
TPU = ['torch==2.9.*', 'torchvision==0.24.*', 'torch_xla==2.9.*']
KEPT = ('torch', 'torchvision', 'numpy', 'wandb')


def uv(*arguments, cwd=None):
    command = [Path(sys.executable).with_name('uv'), *arguments]
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, check=True, capture_output=True, text=True
    )
    return done.stdout


def freeze(python):
    "깔려 있는 것의 이름과 버전"
    lines = uv('pip', 'freeze', '-p', python).splitlines()
    return dict(line.split('==') for line in lines if '==' in line)


@pytest.fixture(scope='session')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    uv('build', '--quiet', '--wheel', '--out-dir', folder, ROOT)
    return next(folder.glob('*.whl'))


def make_colab(folder, python, wheel):
    uv('pip', 'install', '-q', '-p', python, *COLAB)
    package = folder / 'site/google/colab'
    package.mkdir(parents=True)
    (package / '__init__.py').touch()
    (folder / 'site/sitecustomize.py').write_text('import google.colab\n')
    return {'PYTHONPATH': str(folder / 'site')}


def make_lowest(folder, python, wheel):
    options = '-q --resolution lowest-direct'.split()
    extras = (
        '--extra app --extra export --extra ray --extra search --extra stream'.split()
    )
    compile_command = ['pip', 'compile', *options, '-p', python, *extras, 'setup.py']
    path = folder / 'lowest.txt'
    path.write_text(uv(*compile_command, cwd=ROOT))
    uv('pip', 'install', '-q', '-p', python, '-r', path, 'ipykernel')
    uv('pip', 'install', '-q', '-p', python, '--no-deps', wheel)
    return {}


MAKERS = {'colab': make_colab, 'lowest': make_lowest}


def write_kernel(folder, python, variables):
    "`python`을 돌리는 커널을 적어 둔다."
    folder.mkdir(parents=True)
    connection = ['-f', '{connection_file}']
    spec = {
        'argv': [str(python), '-m', 'ipykernel_launcher', *connection],
        'display_name': 'python3',
        'language': 'python',
        'env': variables,
    }
    (folder / 'kernel.json').write_text(json.dumps(spec))


def make_python(name, tmp_path_factory):
    "부른 환경이면 새 폴더와 거기의 빈 파이썬"
    if name not in ASKED:
        needs = '몇 분이 들고 네트워크를 씁니다'
        pytest.skip(f'CIFAR_LIT_ENVIRONMENTS={name}을 주어야 돕니다({needs}).')
    folder = tmp_path_factory.mktemp(name)
    uv('venv', '-q', '--seed', '-p', sys.executable, folder / 'venv')
    return folder, folder / 'venv/bin/python'


@pytest.fixture(scope='session', params=MAKERS)
def place(request, tmp_path_factory, wheel):
    "파이썬과 커널이 있는 곳"
    folder, python = make_python(request.param, tmp_path_factory)
    variables = MAKERS[request.param](folder, python, wheel)
    write_kernel(folder / 'kernels/python3', python, variables)
    return python, folder / 'kernels'


def install_from(wheel, notebook):
    "저장소 대신 `wheel`을 설치하게 한다."

    def replaced(found):
        return f'cifar_lit{found[1] or ""} @ {wheel.as_uri()}'

    address = r'cifar_lit(\[[\w,]+\])? @ git\+https://[^"]+'
    for cell in notebook.cells:
        cell.source = re.sub(address, replaced, cell.source)


@pytest.mark.parametrize('path', CHAPTERS + PARTS, ids=lambda path: path.stem)
def test_notebook_runs(path, place, wheel, tmp_path):
    python, kernels = place
    before = freeze(python)
    notebook = nbformat.read(path, 4)
    install_from(wheel, notebook)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name='python3',
        resources={'metadata': {'path': str(tmp_path)}},
    )
    client.create_kernel_manager()
    client.km.kernel_spec_manager = KernelSpecManager(
        kernel_dirs=[str(kernels)], ensure_native_kernel=False
    )
    client.execute()
    after = freeze(python)
    assert {name: after[name] for name in KEPT} == {name: before[name] for name in KEPT}


@pytest.fixture(scope='session')
def call(tmp_path_factory, wheel):
    "TPU의 소프트웨어가 있는 곳에서 `cifar-lit`을 부르는 함수"
    _, python = make_python('tpu', tmp_path_factory)
    uv('pip', 'install', '-q', '-p', python, *TPU, wheel)
    pretending = [python, Path(__file__).with_name('xla_on_cpu.py')]
    variables = {'PJRT_DEVICE': 'CPU', 'OMP_NUM_THREADS': '1'}

    def call(words, place, accelerator=None, pretend=True):
        command = pretending if pretend else [python.with_name('cifar-lit')]
        asked = ['--trainer.accelerator', accelerator] if accelerator else []
        return subprocess.run(
            [*command, *words.split(), *asked],
            cwd=place,
            env={**ENV, **variables, 'WANDB_MODE': 'disabled'},
            capture_output=True,
            text=True,
        )

    return call


TWENTY = (
    'fit --data.source toy --data.val_size 100 --data.flip random '
    '--model.channels_last false --model.fused false --trainer.precision 32-true '
    '--trainer.limit_train_batches 20 --trainer.log_every_n_steps 1'
)


def finished(done):
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_tpu_trains_as_the_cpu_and_resumes(call, tmp_path):
    once, twice = (f'{TWENTY} --trainer.max_epochs {epochs}' for epochs in (1, 2))
    finished(call(f'{once} --run_dir cpu', tmp_path, 'cpu', pretend=False))
    assert 'xla 1개' in finished(call(f'{once} --run_dir part', tmp_path, 'tpu'))
    pair = [rows_of(tmp_path / run, 'train_loss_step') for run in ('part', 'cpu')]
    assert len(pair[0]) == len(pair[1]) == 20
    assert abs(np.subtract(*pair)).max() < 1e-4

    finished(call(f'{twice} --run_dir whole', tmp_path, 'tpu'))
    finished(call('resume part --trainer.max_epochs 2', tmp_path))
    equal_runs(tmp_path / 'part', tmp_path / 'whole')


def test_what_a_tpu_wrote_is_read_without_one(call, tmp_path):
    finished(call(f'{TWENTY} --trainer.max_epochs 1 --run_dir run', tmp_path, 'tpu'))
    best = tmp_path / 'run/checkpoints/best.ckpt'
    saved = read_checkpoint(best)['state_dict']  # 여기에는 torch_xla가 없다.
    assert all(weight.device.type == 'cpu' for weight in saved.values())
    assert same(LitModel.load_from_checkpoint(best).state_dict(), saved)
    words = f'test --data.source toy --ckpt_path {best}'
    tables = [finished(call(words, tmp_path, name)) for name in ('tpu', 'cpu')]
    scores = [re.search(r'test_loss\D+([\d.]+)', table)[1] for table in tables]
    assert abs(float(scores[0]) - float(scores[1])) < 1e-4


def test_no_tpu_is_told_in_one_line(call, tmp_path):
    done = call(TWENTY, tmp_path, 'tpu', pretend=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    [line] = [row for row in done.stderr.splitlines() if 'XLAAccelerator' in row]
    assert line.startswith('cifar-lit: `XLAAccelerator` can not run on your system')
