"""노트북에 담을 수 없는 것만 여기서 시험한다.

프로세스 여럿, 내려받기 서버, 명령줄 전체.
"""

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
from given import ENV, ROOT, toy_album

from cifar_lit.parts.pictures import CLASSES
from cifar_lit.parts.toy import toy_pictures

CLOSED = 'http://127.0.0.1:9'  # 아무도 듣지 않는 포트
PROXIES = ('http_proxy', 'https_proxy')
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)


# 열려 있는 동안 이 스레드에서 asyncio가 돌므로 파일마다 닫는다.
@pytest.fixture(scope='module')
def browser():
    "시스템의 Chromium을 Playwright로 연 것"
    if not CHROMIUM:
        advice = 'apt-get install chromium으로 설치하면 돕니다.'
        pytest.skip(f'이 컴퓨터에 Chromium이 없습니다. {advice}')
    missing = 'playwright가 없습니다. make test로 돌리면 설치됩니다.'
    sync = pytest.importorskip('playwright.sync_api', reason=missing)
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
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    command = shutil.which('cifar-lit', path=path)
    closed = {}
    for name in PROXIES:
        closed |= {name: CLOSED, name.upper(): CLOSED}

    def call(*arguments, check=True, **variables):
        done = subprocess.run(
            [command, *map(str, arguments)],
            cwd=tmp_path,
            env={**ENV, **closed, 'no_proxy': '127.0.0.1', **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if check:
            assert done.returncode == 0, done.stderr[-3000:]
        return done

    return call


@pytest.fixture
def here(tmp_path, monkeypatch):
    """빈 폴더에서 `cifar-lit`의 `main`을 이 프로세스 안에서 부른다.

    프로세스를 새로 띄우는 것보다 열 배 빠르다. 돌려주는 값은 종료 메시지.
    """
    from cifar_lit.parts.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['cifar-lit'])
    monkeypatch.setattr(warnings, 'formatwarning', warnings.formatwarning)
    for name in PROXIES:
        monkeypatch.setenv(name, CLOSED)

    def call(*arguments):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as error:
            return error.code

    return call


@pytest.fixture
def toy_folder(tmp_path):
    return toy_album(tmp_path / 'photos')


def md5(data):
    return hashlib.md5(data).hexdigest()


def official_files(images, labels):
    "공식 파일의 이름과 내용. 배치마다 20장"
    meta = {'label_names': list(CLASSES), 'num_vis': 3072}
    files = {'batches.meta': pickle.dumps(meta)}
    for j, name in enumerate([f'data_batch_{k}' for k in range(1, 6)] + ['test_batch']):
        part = slice(20 * j, 20 * j + 20)
        pixels = images[part].flatten(1).numpy()
        batch = {'data': pixels, 'labels': labels[part].tolist()}
        files[name] = pickle.dumps(batch)
    return files


def packed(files):
    "공식 배치의 `tar.gz`. 폴더 밖을 가리키는 파일도 하나 든다."
    paths = {f'cifar-10-batches-py/{name}': data for name, data in files.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz') as tar:
        for path, data in {**paths, '../evil': b'x'}.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def archive(monkeypatch):
    """공식 배치 배치(layout)의 작은 압축 파일.

    알려진 md5를 이 파일의 것으로 바꾼다. torchvision이 아는 것도.
    """
    from torchvision.datasets import CIFAR10

    from cifar_lit.parts import download

    images, labels = toy_pictures(120)
    files = official_files(images, labels)
    data = packed(files)
    sums = {name: md5(content) for name, content in files.items()}
    train = [[f'data_batch_{k}', sums[f'data_batch_{k}']] for k in range(1, 6)]
    monkeypatch.setattr(CIFAR10, 'tgz_md5', md5(data))
    monkeypatch.setattr(CIFAR10, 'train_list', train)
    monkeypatch.setattr(CIFAR10, 'test_list', [['test_batch', sums['test_batch']]])
    meta = {**CIFAR10.meta, 'md5': sums['batches.meta']}
    monkeypatch.setattr(CIFAR10, 'meta', meta)
    monkeypatch.setattr(download, '_ARCHIVE_MD5', md5(data))
    monkeypatch.setattr(download, '_MEMBER_MD5', sums)
    return data, images, labels
