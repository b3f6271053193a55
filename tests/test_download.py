"""공식 파일의 내려받기: 사용자가 받는 바로 그 코드로, 로컬 서버에서."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torchvision.datasets import CIFAR10

from cifar_lit.data import (
    CIFAR10DataModule,
    InputError,
    download_cifar10,
    official_pictures,
)

NAME = 'cifar-10-python.tar.gz'


@pytest.fixture
def server(archive):
    "`cut`바이트에서 끊거나, 1 kB마다 `delay`초를 쉬거나, Range를 무시할 수 있는 서버"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self):
            start = (
                int((self.headers.get('Range') or 'bytes=0-').split('=')[1].rstrip('-'))
                if self.server.ranges
                else 0
            )
            self.server.starts.append(start)
            body = self.server.body[start:]
            self.send_response(
                416 if start > len(self.server.body) else 206 if start else 200
            )
            self.send_header('Content-Length', len(body))
            self.end_headers()
            for at in range(0, len(body), 1024):
                if self.server.cut is not None and start + at >= self.server.cut:
                    return self.connection.shutdown(socket.SHUT_RDWR)
                try:
                    self.wfile.write(body[at : at + 1024])
                except BrokenPipeError:
                    return  # 받는 쪽이 그만두었다.
                time.sleep(self.server.delay)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.body, server.cut, server.delay, server.ranges, server.starts = (
        archive[0],
        None,
        0,
        True,
        [],
    )
    server.url = f'http://127.0.0.1:{server.server_port}/{NAME}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_downloads_and_reads_the_official_layout(server, archive, tmp_path):
    dm = CIFAR10DataModule(4, str(tmp_path / 'new'), mirror=server.url, val_size=10)
    dm.prepare_data()
    dm.setup()
    _, images, labels = archive
    (train, train_labels), (test, test_labels) = official_pictures(
        str(tmp_path / 'new')
    )
    assert torch.equal(torch.cat([train, test]), images) and torch.equal(
        torch.cat([train_labels, test_labels]), labels
    )
    assert (
        dm.sizes == {'train': 90, 'val': 10, 'test': 20} and dm.source_used == 'cifar10'
    )
    assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == [
        'cifar-10-batches-py',
        NAME,
    ]
    assert not (tmp_path / 'evil').exists()
    assert len(CIFAR10(tmp_path / 'new')) == 100  # torchvision도 그대로 읽는다.


def test_nothing_is_downloaded_twice(server, tmp_path):
    for _ in range(2):
        download_cifar10(tmp_path, mirror=server.url)
    assert server.starts == [0]


def test_several_processes_download_once(server, tmp_path):
    server.delay = 0.01
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(lambda _: download_cifar10(tmp_path, mirror=server.url), range(4))
        )
    assert server.starts == [0] and official_pictures(tmp_path)


@pytest.mark.parametrize('ranges', [True, False])
def test_a_cut_download_is_resumed(server, tmp_path, ranges):
    server.cut, server.ranges = 100_000, ranges
    with pytest.raises(InputError, match='이어받습니다'):
        download_cifar10(tmp_path, mirror=server.url)
    [part] = tmp_path.iterdir()
    size, server.cut = part.stat().st_size, None
    assert part.name == f'{NAME}.part' and 0 < size <= 101_000
    download_cifar10(tmp_path, mirror=server.url)
    assert (
        server.starts == [0, size if ranges else 0]
        and (tmp_path / NAME).read_bytes() == server.body
    )


def test_a_finished_part_is_used(server, tmp_path):
    (tmp_path / f'{NAME}.part').write_bytes(server.body)
    download_cifar10(tmp_path, mirror=server.url)
    assert server.starts == [] and not (tmp_path / f'{NAME}.part').exists()


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / f'{NAME}.part').write_bytes(server.body + b'more')
    download_cifar10(tmp_path, mirror=server.url)
    assert (
        server.starts == [len(server.body) + 4, 0]
        and (tmp_path / NAME).read_bytes() == server.body
    )


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
    assert [p.name for p in tmp_path.iterdir()] == [NAME] and server.starts == []


def test_an_altered_batch_is_restored(server, tmp_path):
    download_cifar10(tmp_path, mirror=server.url)
    (tmp_path / 'cifar-10-batches-py/data_batch_2').write_bytes(b'x')
    download_cifar10(tmp_path, mirror=server.url)
    assert len(official_pictures(str(tmp_path))[0][1]) == 100 and server.starts == [0]


def test_setup_alone_says_what_is_missing(archive, tmp_path):
    with pytest.raises(InputError, match='prepare_data'):
        CIFAR10DataModule(4, str(tmp_path)).setup()


def test_auto_takes_a_quick_server(server, tmp_path):
    dm = CIFAR10DataModule(
        4, str(tmp_path), source='auto', mirror=server.url, val_size=10
    )
    dm.prepare_data()
    dm.setup()
    assert dm.source_used == 'cifar10' and dm.sizes['test'] == 20


def test_auto_leaves_a_slow_server_and_warns(server, tmp_path):
    server.delay, server.body = 0.2, server.body * 20
    dm, start = (
        CIFAR10DataModule(4, str(tmp_path), source='auto', mirror=server.url),
        time.monotonic(),
    )
    with pytest.warns(UserWarning, match='TooSlow'):
        dm.prepare_data()
    assert time.monotonic() - start < 8
    with pytest.warns(UserWarning, match='진짜 CIFAR-10이 아닙니다'):
        dm.setup()
    assert dm.source_used == 'toy' and dm.sizes == {
        'train': 9000,
        'val': 1000,
        'test': 2000,
    }
    assert dm.hparams.source_used == 'toy'


def test_unwritable_data_dir(server, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='data_dir=.*쓸 수 없습니다'):
        download_cifar10(tmp_path / 'file/data', mirror=server.url)
