"""장마다 빈 폴더, 새 커널, 다른 버전에서: Colab과 가장 낮은 버전. 네트워크와 몇 분이 들어, 부를 때만 돈다.

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
ASKED = os.environ.get('CIFAR_LIT_ENVIRONMENTS', '').split(',')
# 2026년 8월의 Colab에 깔려 있는 것. lightning, torchmetrics, jsonargparse는 없다.
COLAB = [
    'torch==2.11.*',
    'torchvision==0.26.*',
    'numpy==2.1.*',
    'wandb==0.28.1',
    'ipykernel==6.17.*',
    'matplotlib',
    'scipy',
    'requests',
    'tqdm',
    'pandas',
]
KEPT = ('torch', 'torchvision', 'numpy', 'wandb')


def uv(*args, **kwargs):
    return subprocess.run(
        [str(Path(sys.executable).with_name('uv')), *map(str, args)],
        check=True,
        capture_output=True,
        text=True,
        **kwargs,
    ).stdout


def freeze(python):
    return dict(
        line.split('==')
        for line in uv('pip', 'freeze', '-p', python).splitlines()
        if '==' in line
    )


@pytest.fixture(scope='session')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    uv('build', '--quiet', '--wheel', '--out-dir', folder, ROOT)
    return next(folder.glob('*.whl'))


def make_colab(folder, python, wheel):
    uv('pip', 'install', '-q', '-p', python, *COLAB)
    (folder / 'site/google/colab').mkdir(parents=True)
    (folder / 'site/google/colab/__init__.py').touch()
    (folder / 'site/sitecustomize.py').write_text('import google.colab\n')
    return {'PYTHONPATH': str(folder / 'site')}


def make_lowest(folder, python, wheel):
    lowest = uv(
        'pip',
        'compile',
        '-q',
        '--no-emit-index-url',
        '--resolution',
        'lowest-direct',
        '-p',
        python,
        '--extra',
        'app',
        '--extra',
        'export',
        'setup.py',
        cwd=ROOT,
    )
    (folder / 'lowest.txt').write_text(lowest)
    uv('pip', 'install', '-q', '-p', python, '-r', folder / 'lowest.txt', 'ipykernel')
    uv('pip', 'install', '-q', '-p', python, '--no-deps', wheel)
    return {}


@pytest.fixture(scope='session', params=['colab', 'lowest'])
def place(request, tmp_path_factory, wheel):
    "파이썬과 커널이 있는 곳"
    if request.param not in ASKED:
        pytest.skip(
            f'CIFAR_LIT_ENVIRONMENTS={request.param}을 주어야 돕니다(몇 분이 들고 네트워크를 씁니다).'
        )
    folder = tmp_path_factory.mktemp(request.param)
    uv('venv', '-q', '--seed', '-p', sys.executable, folder / 'venv')
    python = folder / 'venv/bin/python'
    env = {'colab': make_colab, 'lowest': make_lowest}[request.param](
        folder, python, wheel
    )
    spec = folder / 'kernels/python3'
    spec.mkdir(parents=True)
    spec.joinpath('kernel.json').write_text(
        json.dumps(
            dict(
                argv=[
                    str(python),
                    '-m',
                    'ipykernel_launcher',
                    '-f',
                    '{connection_file}',
                ],
                display_name='python3',
                language='python',
                env=env,
            )
        )
    )
    return python, folder / 'kernels'


@pytest.mark.parametrize('path', CHAPTERS, ids=lambda p: p.stem)
def test_chapter_runs(path, place, wheel, tmp_path):
    python, kernels = place
    before = freeze(python)
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.source = re.sub(
            r'cifar_lit(\[[\w,]+\])? @ git\+https://[^"]+',
            lambda found: f'cifar_lit{found[1] or ""} @ {wheel.as_uri()}',
            cell.source,
        )
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
    assert {key: before[key] for key in KEPT} == {key: after[key] for key in KEPT}
