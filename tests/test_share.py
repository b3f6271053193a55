"""사진을 분류하고 모델을 건네는 일 가운데 노트북에 담을 수 없는 것: 별난 사진, 악의가 있는 파일, 큰 폴더, 진짜 브라우저."""

import http.server
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import zlib
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ENV
from PIL import Image

from cifar_lit.cli import main
from cifar_lit.data import InputError, toy_pictures
from cifar_lit.evaluate import evaluate
from cifar_lit.share import export_onnx, export_safetensors, load_model, predict


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "장난감 그림으로 조금 학습한 실행 폴더"
    folder = tmp_path_factory.mktemp('share')
    command = f'tutorial --data.source toy --trainer.max_epochs 1 --trainer.limit_train_batches 60 --model.learning_rate 1e-3 --trainer.enable_model_summary false --run_dir {folder}/run'
    subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys; from cifar_lit.cli import main; main(sys.argv[1:])',
            *command.split(),
        ],
        cwd=folder,
        env=ENV,
        check=True,
        capture_output=True,
    )
    return folder / 'run'


def call(*args):
    "`cifar-lit`의 종료 값"
    try:
        return main([str(arg) for arg in args])
    except SystemExit as e:
        return e.code


def bomb():
    "머리에 60,000 × 60,000이라고 적힌 작은 PNG"
    chunk = lambda kind, data: (
        struct.pack('>I', len(data))
        + kind
        + data
        + struct.pack('>I', zlib.crc32(kind + data))
    )
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(b'\0' * 1000))
        + chunk(b'IEND', b'')
    )


@pytest.fixture
def album(tmp_path):
    "같은 그림을 별난 형식으로 담은 사진첩"
    album = tmp_path / 'album'
    album.mkdir()
    picture = Image.fromarray(toy_pictures(1)[0][0].permute(1, 2, 0).numpy()).resize(
        (64, 64), Image.Resampling.NEAREST
    )
    gray = np.asarray(picture.convert('L'))
    picture.save(album / 'plain.png')
    picture.save(album / 'mislabelled.jpg', format='PNG')
    picture.save(album / 'no_suffix', format='PNG')
    picture.save(
        album / 'animated.gif',
        save_all=True,
        append_images=[Image.new('RGB', (64, 64), 'red')] * 3,
    )
    Image.fromarray(gray.astype(np.uint16) * 257).save(album / 'deep16.png')
    Image.fromarray(gray).save(album / 'gray.png')
    picture.convert('CMYK').save(album / 'cmyk.tif')
    picture.quantize(256).save(album / 'palette.png')
    clear = picture.convert('RGBA')
    clear.putalpha(
        Image.fromarray(
            np.where(np.arange(64)[:, None] < 8, 0, 255).repeat(64, 1).astype(np.uint8)
        )
    )
    clear.save(album / 'alpha.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90).save(album / 'rotated.png', exif=exif)
    (album / 'truncated.png').write_bytes((album / 'plain.png').read_bytes()[:200])
    (album / 'empty.jpg').touch()
    (album / 'letter.jpg').write_text('사진이 아닙니다.', encoding='utf-8')
    (album / 'bomb.png').write_bytes(bomb())
    (album / 'script.eps').write_text(
        '%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n'
    )
    return album


BROKEN = {'truncated.png', 'empty.jpg', 'letter.jpg', 'bomb.png', 'script.eps'}


def test_odd_pictures_are_answered_or_named(run, album, capsys):
    assert call('classify', run, album, '--json', '--top_k', 10) == 1
    rows = {
        Path(row['path']).name: row
        for row in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert set(rows) == {path.name for path in album.iterdir()}
    assert {name for name, row in rows.items() if 'error' in row} == BROKEN
    assert all(
        row['error'].count(name) == 1 and '\n' not in row['error']
        for name, row in rows.items()
        if name in BROKEN
    )
    top = lambda name: {
        answer['class']: answer['probability'] for answer in rows[name]['top']
    }
    for name in ('mislabelled.jpg', 'no_suffix', 'rotated.png'):
        assert top(name) == top('plain.png')
    assert top('deep16.png') == top('gray.png') != top('plain.png')
    for name in ('animated.gif', 'cmyk.tif', 'palette.png'):
        assert sum(abs(top(name)[c] - p) for c, p in top('plain.png').items()) < 0.2
    white = np.asarray(Image.open(album / 'plain.png')).copy()
    white[:8] = 255
    [expected] = predict(run, white, top_k=10)
    assert top('alpha.png') == pytest.approx(dict(expected.top), abs=1e-5)


def test_table_goes_to_stdout_and_errors_to_stderr(run, album, capsys):
    assert (
        call('classify', run, album / 'plain.png', album / 'empty.jpg', album / '*.gif')
        == 1
    )
    printed = capsys.readouterr()
    assert [line.split()[-1] for line in printed.out.splitlines()] == [
        str(album / 'plain.png'),
        str(album / 'animated.gif'),
    ]
    assert printed.err.count('\n') == 1 and 'empty.jpg' in printed.err
    assert call('classify', run, album / 'plain.png') == 0


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


@contextmanager
def served(folder):
    handler = type(
        'Quiet',
        (http.server.SimpleHTTPRequestHandler,),
        {'log_message': lambda *_: None},
    )
    with http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), partial(handler, directory=folder)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'hparams'])
def test_hostile_checkpoint_runs_nothing(here, run, tmp_path, monkeypatch, kind):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    evil = Hostile(str(tmp_path / 'owned'))
    content = torch.load(run / 'checkpoints/best.ckpt', weights_only=True)
    content['hyper_parameters' if kind == 'hparams' else 'callbacks'] = {'x': evil}
    torch.save(
        content, tmp_path / 'evil.ckpt', _use_new_zipfile_serialization=kind != 'legacy'
    )
    with served(tmp_path) as address:
        for path in (str(tmp_path / 'evil.ckpt'), f'{address}/evil.ckpt'):
            for use in (
                load_model,
                evaluate,
                partial(export_onnx, path=str(tmp_path / 'm.onnx')),
            ):
                with pytest.raises(InputError, match='코드는 실행하지 않았습니다'):
                    use(path)
            assert '코드는 실행하지 않았습니다' in here(
                'test', '--data.source', 'toy', '--ckpt_path', path
            )
        assert (
            not (tmp_path / 'owned').exists()
            and not (tmp_path / 'm.onnx').exists()
            and not (tmp_path / 'runs').exists()
        )
    with open(tmp_path / 'evil.ckpt', 'rb') as file:
        torch.load(file, weights_only=False)
    assert (tmp_path / 'owned').exists()  # 막지 않으면 정말 실행되는 파일이다.


def test_checkpoint_from_an_address(here, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    pictures = toy_pictures(5, seed=9)[0]
    with served(run / 'checkpoints') as address:
        assert torch.equal(
            load_model(f'{address}/best.ckpt')(pictures), load_model(run)(pictures)
        )
        assert (
            here(
                'test',
                '--data.source',
                'toy',
                '--ckpt_path',
                f'{address}/best.ckpt',
                '--run_dir',
                'tested',
            )
            is None
        )
        with pytest.raises(
            InputError, match='nothing.ckpt: 체크포인트를 열 수 없습니다'
        ):
            load_model(f'{address}/nothing.ckpt')


def test_network_from_config_comes_back(here, tmp_path):
    from torchvision.models import squeezenet1_1

    assert (
        here(
            'tutorial',
            '--data.source',
            'toy',
            '--trainer.max_epochs',
            1,
            '--trainer.limit_train_batches',
            5,
            '--trainer.enable_model_summary',
            'false',
            '--run_dir',
            'run',
            '--model.net',
            'torchvision.models.squeezenet1_1',
            '--model.net.num_classes',
            10,
        )
        is None
    )
    images = toy_pictures(3)[0]
    answer = load_model('run')(images)
    shutil.copy('run/checkpoints/best.ckpt', 'alone.ckpt')
    with pytest.raises(InputError, match='net'):
        load_model('alone.ckpt')
    assert torch.equal(
        load_model('alone.ckpt', net=squeezenet1_1(num_classes=10))(images), answer
    )
    for write, name in ((export_onnx, 'm.onnx'), (export_safetensors, 'm.safetensors')):
        path = write('run', name)
        again = load_model(path, net=squeezenet1_1(num_classes=10))
        torch.testing.assert_close(again(images), answer, atol=1e-4, rtol=0)


def test_ten_thousand_pictures_are_not_held_in_memory(run, tmp_path):
    folder = tmp_path / 'many'
    folder.mkdir()
    big = Image.effect_noise((400, 400), 90).convert(
        'RGB'
    )  # 디코딩하면 0.5 MB, 모두 5 GB
    big.save(folder / '0.jpg', quality=30)
    for k in range(1, 10_000):
        os.link(folder / '0.jpg', folder / f'{k}.jpg')
    body = f"""
        import resource
        from cifar_lit.share import load_model, predict
        model = load_model({str(run)!r})
        list(predict(model, {str(folder / '0.jpg')!r}))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        count = sum(answer.error is None for answer in predict(model, {str(folder)!r}))
        print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(body)],
        capture_output=True,
        text=True,
        env=ENV,
        cwd=tmp_path,
    )
    count, grown = map(int, done.stdout.split())
    assert count == 10_000 and grown < 200, f'{grown} MB'


def test_unwritable_and_unknown_targets(run, capsys):
    assert '/proc/none/m.onnx에 쓸 수 없습니다' in call(
        'export', run, '/proc/none/m.onnx'
    )
    assert '.onnx나 .safetensors' in call('export', run, 'm.h5')
    assert '체크포인트를 열 수 없습니다' in call('classify', 'nothing.ckpt', 'x.png')


@pytest.fixture(scope='module')
def page_path(run, tmp_path_factory):
    page_path = tmp_path_factory.mktemp('report') / 'report.html'
    assert call('report', run, '--no-wandb', '--output', page_path) is None
    return page_path


@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_report_opens_from_disk(browser, page_path, width, scheme):
    page = browser.new_context(
        viewport={'width': width, 'height': 900}, color_scheme=scheme
    ).new_page()
    problems, requests = [], []
    (
        page.on('console', lambda message: problems.append(message.text)),
        page.on('pageerror', lambda error: problems.append(str(error))),
    )
    page.on('request', lambda request: requests.append(request.url))
    page.goto(page_path.as_uri())
    assert problems == [] and [
        url for url in requests if not url.startswith('data:')
    ] == [page_path.as_uri()]
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    pictures = page.locator('img').evaluate_all(
        'images => images.map(i => [i.naturalWidth > 100, i.alt.length > 0, i.currentSrc])'
    )
    assert len(pictures) == 4 and all(wide and alt for wide, alt, _ in pictures)
    text = page_path.read_text(encoding='utf-8')
    assert all(
        (source in re.findall(r'srcset="([^"]+)"', text)) == (scheme == 'dark')
        for _, _, source in pictures
    )


@contextmanager
def app(run, cwd):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    env = {**ENV, 'no_proxy': '127.0.0.1', 'PYTHONUNBUFFERED': '1'}
    command = [
        sys.executable,
        '-c',
        'import sys; from cifar_lit.cli import main; main(sys.argv[1:])',
        'app',
        str(run),
        '--port',
        str(port),
    ]
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            line = next((line for line in process.stdout if '열었습니다' in line), '')
            assert f'http://127.0.0.1:{port}' in line, process.poll()
            yield port
        finally:
            process.terminate()


def test_app_answers_a_picture_and_refuses_a_broken_file(browser, run, album):
    with app(run, album.parent) as port:
        page, hosts = browser.new_page(), set()
        page.on(
            'request',
            lambda request: (
                hosts.add(request.url.split('/')[2])
                if request.url.startswith('http')
                else None
            ),
        )
        page.goto(f'http://127.0.0.1:{port}')
        page.wait_for_selector('input[type=file]', state='attached')
        page.set_input_files('input[type=file]', album / 'plain.png')
        page.wait_for_selector('text=/\\d%/')
        [expected] = predict(run, album / 'plain.png')
        assert expected.top[0][0] in page.inner_text('body')
        page.get_by_label('Remove Image').first.click()
        page.set_input_files('input[type=file]', album / 'truncated.png')
        page.wait_for_selector('text=truncated.png은(는) 사진으로 읽을 수 없습니다')
        assert hosts == {f'127.0.0.1:{port}'}
        listening = Path('/proc/net/tcp').read_text() if sys.platform == 'linux' else ''
        assert (
            f'00000000:{port:04X}' not in listening
        )  # 다른 컴퓨터에서는 보이지 않는다.
        assert '에서 열 수 없습니다' in call('app', run, '--port', port)
