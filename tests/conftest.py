"""노트북에 담을 수 없는 것만 여기서 시험한다: 프로세스 여럿, 내려받기 서버, 명령줄 전체."""

import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import pytest
from PIL import Image

from cifar_lit.data import CLASSES, toy_pictures

ROOT = Path(__file__).parent.parent
os.environ.update(WANDB_SILENT='true', WANDB_MODE='offline')
ENV = dict(os.environ)  # 이 프로세스의 wandb가 자식에게 물려줄 변수를 더하기 전의 것


CHROMIUM = next(
    filter(
        None,
        map(
            shutil.which,
            ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'),
        ),
    ),
    None,
)


@pytest.fixture(
    scope='module'
)  # 열려 있는 동안 이 스레드에서 asyncio가 돌므로 파일마다 닫는다.
def browser():
    "시스템의 Chromium을 Playwright로 연 것"
    if not CHROMIUM:
        pytest.skip(
            '이 컴퓨터에 Chromium이 없습니다. apt-get install chromium으로 설치하면 돕니다.'
        )
    sync = pytest.importorskip(
        'playwright.sync_api',
        reason='playwright가 없습니다. make test로 돌리면 설치됩니다.',
    )
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox']
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope='session')
def shots():
    "화면을 남기는 폴더. 커밋하지 않고, CI에서는 내려받을 수 있게 올린다."
    folder = ROOT / 'shots'
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def cli(tmp_path):
    "빈 폴더에서 `cifar-lit`을 부른다. 네트워크 대신 닫힌 포트를 보게 한다."
    command = shutil.which(
        'cifar-lit',
        path=os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]),
    )
    closed = {
        name: 'http://127.0.0.1:9'
        for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY')
    }

    def call(*args, check=True, **env):
        done = subprocess.run(
            [command, *map(str, args)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**ENV, **closed, 'no_proxy': '127.0.0.1', **env},
        )
        if check:
            assert done.returncode == 0, done.stderr[-3000:]
        return done

    return call


@pytest.fixture
def here(tmp_path, monkeypatch):
    "빈 폴더에서 `cifar-lit`의 `main`을 이 프로세스 안에서 부른다. 프로세스를 새로 띄우는 것보다 열 배 빠르다. 돌려주는 값은 종료 메시지"
    from cifar_lit.train import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['cifar-lit'])
    monkeypatch.setattr(warnings, 'formatwarning', warnings.formatwarning)
    for name in ('http_proxy', 'https_proxy'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')

    def call(*args):
        try:
            main([str(arg) for arg in args])
        except SystemExit as e:
            return e.code

    return call


@pytest.fixture
def toy_folder(tmp_path):
    "클래스가 셋인 사진 폴더: 학습 60장, 평가 30장"
    images, labels = toy_pictures(300)
    folder = tmp_path / 'photos'
    for k in range(3):
        for i, image in enumerate(images[labels == k]):
            target = folder / ('train' if i < 20 else 'test') / CLASSES[k]
            target.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).resize((48, 40)).save(
                target / f'{i}.png'
            )
    return folder


@pytest.fixture
def archive(monkeypatch):
    "공식 배치 배치(layout)의 작은 압축 파일. torchvision이 아는 md5를 이 파일의 것으로 바꾼다."
    from torchvision.datasets import CIFAR10

    images, labels = toy_pictures(120)
    md5 = lambda data: hashlib.md5(data).hexdigest()
    members = {
        'batches.meta': pickle.dumps({'label_names': list(CLASSES), 'num_vis': 3072})
    }
    for j, name in enumerate([f'data_batch_{k}' for k in range(1, 6)] + ['test_batch']):
        part = slice(20 * j, 20 * j + 20)
        members[name] = pickle.dumps(
            {'data': images[part].flatten(1).numpy(), 'labels': labels[part].tolist()}
        )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w:gz') as tar:
        for name, data in {**members, 'evil': b'x'}.items():
            info = tarfile.TarInfo(
                '../evil' if name == 'evil' else f'cifar-10-batches-py/{name}'
            )
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    monkeypatch.setattr(CIFAR10, 'tgz_md5', md5(packed.getvalue()))
    monkeypatch.setattr(
        CIFAR10,
        'train_list',
        [[f'data_batch_{k}', md5(members[f'data_batch_{k}'])] for k in range(1, 6)],
    )
    monkeypatch.setattr(
        CIFAR10, 'test_list', [['test_batch', md5(members['test_batch'])]]
    )
    monkeypatch.setattr(
        CIFAR10, 'meta', {**CIFAR10.meta, 'md5': md5(members['batches.meta'])}
    )
    return packed.getvalue(), images, labels
