"""노트북마다 빈 폴더, 새 커널, 다른 버전에서: Colab과 가장 낮은 버전.

네트워크와 몇 분이 들어, 부를 때만 돈다.

CIFAR_LIT_ENVIRONMENTS=colab,lowest python -m pytest tests/test_environments.py
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

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
    options = '-q --no-emit-index-url --resolution lowest-direct'.split()
    extras = '--extra app --extra export --extra search --extra stream'.split()
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


@pytest.fixture(scope='session', params=MAKERS)
def place(request, tmp_path_factory, wheel):
    "파이썬과 커널이 있는 곳"
    if request.param not in ASKED:
        needs = '몇 분이 들고 네트워크를 씁니다'
        pytest.skip(f'CIFAR_LIT_ENVIRONMENTS={request.param}을 주어야 돕니다({needs}).')
    folder = tmp_path_factory.mktemp(request.param)
    uv('venv', '-q', '--seed', '-p', sys.executable, folder / 'venv')
    python = folder / 'venv/bin/python'
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
