"""공식 파일의 내려받기: 사용자가 받는 바로 그 코드로, 로컬 서버에서."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torchvision.datasets import CIFAR10

from cifar_lit.data import CIFAR10DataModule
from cifar_lit.parts import download
from cifar_lit.parts.download import download_cifar10, official_pictures
from cifar_lit.parts.files import InputError

NAME = 'cifar-10-python.tar.gz'


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        options = self.server
        start = self.asked_start() if options.ranges else 0
        options.starts.append(start)
        self.send_head(start, len(options.body))
        for at in range(start, len(options.body), 1024):
            if options.cut is not None and at >= options.cut:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            try:
                self.wfile.write(options.body[at : at + 1024])
            except BrokenPipeError:
                return  # 받는 쪽이 그만두었다.
            time.sleep(options.delay)

    def asked_start(self):
        asked = self.headers.get('Range') or 'bytes=0-'
        return int(asked.removeprefix('bytes=').removesuffix('-'))

    def send_head(self, start, size):
        if start > size:
            self.send_response(416)
        else:
            self.send_response(206 if start else 200)
        self.send_header('Content-Length', max(0, size - start))
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(archive):
    """압축 파일 하나를 주는 서버.

    `cut`바이트에서 끊거나, 1 kB마다 `delay`초를 쉬거나, Range를 무시할 수 있다.
    """
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.body, server.starts = archive[0], []
    server.cut, server.delay, server.ranges = None, 0, True
    server.url = f'http://127.0.0.1:{server.server_port}/{NAME}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_downloads_and_reads_the_official_layout(server, archive, tmp_path):
    folder = tmp_path / 'new'
    dm = CIFAR10DataModule(4, str(folder), mirror=server.url, val_size=10)
    dm.prepare_data()
    dm.setup()
    _, images, labels = archive
    parts = [official_pictures(str(folder), split) for split in ('train', 'test')]
    read_images, read_labels = (torch.cat(pair) for pair in zip(*parts))
    assert torch.equal(read_images, images) and torch.equal(read_labels, labels)
    assert dm.sizes == {'train': 90, 'val': 10, 'test': 20}
    assert dm.source.name == 'cifar10'
    names = sorted(path.name for path in folder.iterdir())
    assert names == ['cifar-10-batches-py', NAME]
    assert not (tmp_path / 'evil').exists()
    assert len(CIFAR10(folder)) == 100  # torchvision도 그대로 읽는다.


def test_known_sums_are_those_of_torchvision():
    sums = dict([*CIFAR10.train_list, *CIFAR10.test_list])
    sums[CIFAR10.meta['filename']] = CIFAR10.meta['md5']
    assert download._MEMBER_MD5 == sums
    assert download._ARCHIVE_MD5 == CIFAR10.tgz_md5 and download._URL == CIFAR10.url
    assert download.BATCH_FOLDER == CIFAR10.base_folder and NAME == CIFAR10.filename


def test_a_member_that_is_not_the_official_one_is_not_placed(
    server, tmp_path, monkeypatch
):
    monkeypatch.setitem(download._MEMBER_MD5, 'data_batch_4', '0' * 32)
    with pytest.raises(InputError, match='data_batch_4이 공식 파일과 다릅니다'):
        download_cifar10(tmp_path, mirror=server.url)
    assert not (tmp_path / 'cifar-10-batches-py/data_batch_4').exists()


def test_nothing_is_downloaded_twice(server, tmp_path):
    for _ in range(2):
        download_cifar10(tmp_path, mirror=server.url)
    assert server.starts == [0]


def test_several_processes_download_once(server, tmp_path):
    server.delay = 0.01
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(download_cifar10, tmp_path, mirror=server.url) for _ in range(4)
        ]
    for call in calls:
        call.result()
    assert server.starts == [0] and official_pictures(tmp_path, 'train')


@pytest.mark.parametrize('ranges', [True, False])
def test_a_cut_download_is_resumed(server, tmp_path, ranges):
    server.cut, server.ranges = 100_000, ranges
    with pytest.raises(InputError, match='이어받습니다'):
        download_cifar10(tmp_path, mirror=server.url)
    [part] = tmp_path.iterdir()
    size, server.cut = part.stat().st_size, None
    assert part.name == f'{NAME}.part' and 0 < size <= 101_000
    download_cifar10(tmp_path, mirror=server.url)
    assert server.starts == [0, size if ranges else 0]
    assert (tmp_path / NAME).read_bytes() == server.body


def test_a_finished_part_is_used(server, tmp_path):
    (tmp_path / f'{NAME}.part').write_bytes(server.body)
    download_cifar10(tmp_path, mirror=server.url)
    assert server.starts == [] and not (tmp_path / f'{NAME}.part').exists()


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / f'{NAME}.part').write_bytes(server.body + b'more')
    download_cifar10(tmp_path, mirror=server.url)
    assert server.starts == [len(server.body) + 4, 0]
    assert (tmp_path / NAME).read_bytes() == server.body


def test_an_altered_download_is_thrown_away(server, tmp_path):
    server.body = server.body[:-9] + bytes(9)
    with pytest.raises(InputError, match='md5'):
        download_cifar10(tmp_path, mirror=server.url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'spoil', [lambda body: body[:5000], lambda body: b'x' + body[1:]]
)
def test_a_spoiled_archive_is_named_and_kept(server, tmp_path, spoil):
    (tmp_path / NAME).write_bytes(spoil(server.body))
    with pytest.raises(InputError, match=NAME):
        download_cifar10(tmp_path, mirror=server.url)
    assert [path.name for path in tmp_path.iterdir()] == [NAME] and server.starts == []


def test_an_altered_batch_is_restored(server, tmp_path):
    download_cifar10(tmp_path, mirror=server.url)
    (tmp_path / 'cifar-10-batches-py/data_batch_2').write_bytes(b'x')
    download_cifar10(tmp_path, mirror=server.url)
    _, labels = official_pictures(str(tmp_path), 'train')
    assert len(labels) == 100 and server.starts == [0]


def test_setup_alone_says_what_is_missing(archive, tmp_path):
    with pytest.raises(InputError, match='prepare_data'):
        CIFAR10DataModule(4, str(tmp_path)).setup()


def test_auto_takes_a_quick_server(server, tmp_path):
    settings = dict(source='auto', mirror=server.url, val_size=10)
    dm = CIFAR10DataModule(4, str(tmp_path), **settings)
    dm.prepare_data()
    dm.setup()
    assert dm.source.name == 'cifar10' and dm.sizes['test'] == 20


def test_auto_leaves_a_slow_server_and_warns(server, tmp_path):
    server.delay, server.body = 0.2, server.body * 20
    dm = CIFAR10DataModule(4, str(tmp_path), source='auto', mirror=server.url)
    start = time.monotonic()
    with pytest.warns(UserWarning, match='TooSlow'):
        dm.prepare_data()
    assert time.monotonic() - start < 8
    with pytest.warns(UserWarning, match='진짜 CIFAR-10이 아닙니다'):
        dm.setup()
    assert dm.source.name == 'toy' and dm.hparams.source_used == 'toy'
    assert dm.sizes == {'train': 9000, 'val': 1000, 'test': 2000}


def test_unwritable_data_dir(server, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='data_dir=.*쓸 수 없습니다'):
        download_cifar10(tmp_path / 'file/data', mirror=server.url)
