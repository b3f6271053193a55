"""사진을 분류하고 모델을 건네는 일 가운데 노트북에 담을 수 없는 것.

별난 사진, 악의가 있는 파일, 큰 폴더, 진짜 브라우저.
"""

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
from torchvision.models import squeezenet1_1

from cifar_lit.cli import main
from cifar_lit.evaluate import evaluate
from cifar_lit.parts.files import InputError
from cifar_lit.parts.toy import toy_pictures
from cifar_lit.share import export_onnx, export_safetensors, load_model, predict

COMMAND = [
    sys.executable,
    '-c',
    'import sys; from cifar_lit.cli import main; main(sys.argv[1:])',
]
TOY = '--data.source toy --trainer.max_epochs 1 --trainer.enable_model_summary false'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "장난감 그림으로 조금 학습한 실행 폴더"
    folder = tmp_path_factory.mktemp('share')
    options = (
        f'{TOY} --trainer.limit_train_batches 60 --model.learning_rate 1e-3'
    ).split()
    subprocess.run(
        [*COMMAND, 'tutorial', *options, '--run_dir', str(folder / 'run')],
        cwd=folder,
        env=ENV,
        check=True,
        capture_output=True,
    )
    return folder / 'run'


def call(*arguments):
    "`cifar-lit`의 종료 코드"
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def png_chunk(kind, data):
    check = zlib.crc32(kind + data)
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', check)


def bomb():
    "머리에 60,000 × 60,000이라고 적힌 작은 PNG"
    head = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = {b'IHDR': head, b'IDAT': zlib.compress(b'\0' * 1000), b'IEND': b''}
    parts = [png_chunk(kind, data) for kind, data in chunks.items()]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def to_picture(image):
    "uint8 `(3, H, W)`를 PIL 이미지로"
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def save_pictures(album):
    "같은 그림을 별난 형식으로 담는다."
    picture = to_picture(toy_pictures(1)[0][0])
    picture = picture.resize((64, 64), Image.Resampling.NEAREST)
    picture.save(album / 'plain.png')
    picture.save(album / 'mislabelled.jpg', format='PNG')
    picture.save(album / 'no_suffix', format='PNG')
    frames = [Image.new('RGB', (64, 64), 'red')] * 3
    picture.save(album / 'animated.gif', save_all=True, append_images=frames)
    gray = np.asarray(picture.convert('L'))
    Image.fromarray(gray).save(album / 'gray.png')
    Image.fromarray(gray.astype(np.uint16) * 257).save(album / 'deep16.png')
    picture.convert('CMYK').save(album / 'cmyk.tif')
    picture.quantize(256).save(album / 'palette.png')
    alpha = np.full((64, 64), 255, np.uint8)
    alpha[:8] = 0
    clear = picture.convert('RGBA')
    clear.putalpha(Image.fromarray(alpha))
    clear.save(album / 'alpha.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90).save(album / 'rotated.png', exif=exif)


def save_broken(album):
    "사진으로 읽을 수 없는 것"
    whole = (album / 'plain.png').read_bytes()
    script = '%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n'
    (album / 'truncated.png').write_bytes(whole[:200])
    (album / 'empty.jpg').touch()
    (album / 'letter.jpg').write_text('사진이 아닙니다.', encoding='utf-8')
    (album / 'bomb.png').write_bytes(bomb())
    (album / 'script.eps').write_text(script)


BROKEN = {'truncated.png', 'empty.jpg', 'letter.jpg', 'bomb.png', 'script.eps'}


@pytest.fixture
def album(tmp_path):
    "별난 사진과 망가진 사진을 담은 사진첩"
    album = tmp_path / 'album'
    album.mkdir()
    save_pictures(album)
    save_broken(album)
    return album


def probabilities(row):
    return {answer['class']: answer['probability'] for answer in row['top']}


def test_odd_pictures_are_answered_or_named(run, album, capsys):
    assert call('classify', run, album, '--json', '--top_k', 10) == 1
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    rows = {Path(row['path']).name: row for row in lines}
    errors = {name: row['error'] for name, row in rows.items() if 'error' in row}
    assert set(rows) == {path.name for path in album.iterdir()}
    assert set(errors) == BROKEN
    for name, error in errors.items():
        assert error.count(name) == 1 and '\n' not in error
    top = {name: probabilities(row) for name, row in rows.items() if name not in BROKEN}
    for name in ('mislabelled.jpg', 'no_suffix', 'rotated.png'):
        assert top[name] == top['plain.png']
    assert top['deep16.png'] == top['gray.png'] != top['plain.png']
    for name in ('animated.gif', 'cmyk.tif', 'palette.png'):
        gaps = [abs(top[name][c] - p) for c, p in top['plain.png'].items()]
        assert sum(gaps) < 0.2
    white = np.asarray(Image.open(album / 'plain.png')).copy()
    white[:8] = 255
    [expected] = predict(run, white, top_k=10)
    assert top['alpha.png'] == pytest.approx(dict(expected.top), abs=1e-5)


def test_table_goes_to_stdout_and_errors_to_stderr(run, album, capsys):
    plain, empty, gifs = (album / name for name in ('plain.png', 'empty.jpg', '*.gif'))
    assert call('classify', run, plain, empty, gifs) == 1
    printed = capsys.readouterr()
    named = [line.split()[-1] for line in printed.out.splitlines()]
    assert named == [str(plain), str(album / 'animated.gif')]
    assert printed.err.count('\n') == 1 and 'empty.jpg' in printed.err
    assert call('classify', run, plain) == 0


class Hostile:
    "pickle이 읽으면 파일을 만든다."

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextmanager
def served(folder):
    "`folder`를 보여 주는 서버의 주소"
    handler = partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'hparams'])
def test_hostile_checkpoint_runs_nothing(here, run, tmp_path, monkeypatch, kind):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    owned, evil, onnx = (tmp_path / name for name in ('owned', 'evil.ckpt', 'm.onnx'))
    refused = '코드는 실행하지 않았습니다'
    checkpoint = torch.load(run / 'checkpoints/best.ckpt', weights_only=True)
    key = 'hyper_parameters' if kind == 'hparams' else 'callbacks'
    checkpoint[key] = {'x': Hostile(str(owned))}
    torch.save(checkpoint, evil, _use_new_zipfile_serialization=kind != 'legacy')
    with served(tmp_path) as address:
        for path in (str(evil), f'{address}/evil.ckpt'):
            for use in (load_model, evaluate, partial(export_onnx, path=str(onnx))):
                with pytest.raises(InputError, match=refused):
                    use(path)
            options = ['--data.source', 'toy', '--ckpt_path', path]
            assert refused in here('test', *options)
    for made in (owned, onnx, tmp_path / 'runs'):
        assert not made.exists()
    with open(evil, 'rb') as file:
        torch.load(file, weights_only=False)
    assert owned.exists()  # 막지 않으면 정말 실행되는 파일이다.


def test_checkpoint_from_an_address(here, run, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    pictures, _ = toy_pictures(5, seed=9)
    with served(run / 'checkpoints') as address:
        best = f'{address}/best.ckpt'
        assert torch.equal(load_model(best)(pictures), load_model(run)(pictures))
        options = ['--data.source', 'toy', '--ckpt_path', best, '--run_dir', 'tested']
        assert here('test', *options) is None
        missing = 'nothing.ckpt: 체크포인트를 열 수 없습니다'
        with pytest.raises(InputError, match=missing):
            load_model(f'{address}/nothing.ckpt')


def test_network_from_config_comes_back(here):
    options = (
        f'{TOY} --trainer.limit_train_batches 5 --run_dir run '
        '--model.net torchvision.models.squeezenet1_1 --model.net.num_classes 10'
    ).split()
    assert here('tutorial', *options) is None
    images, _ = toy_pictures(3)
    answer = load_model('run')(images)
    shutil.copy('run/checkpoints/best.ckpt', 'alone.ckpt')
    with pytest.raises(InputError, match='net'):
        load_model('alone.ckpt')
    alone = load_model('alone.ckpt', net=squeezenet1_1(num_classes=10))
    assert torch.equal(alone(images), answer)
    for write, name in ((export_onnx, 'm.onnx'), (export_safetensors, 'm.safetensors')):
        again = load_model(write('run', name), net=squeezenet1_1(num_classes=10))
        torch.testing.assert_close(again(images), answer, atol=1e-4, rtol=0)


MANY = """
    import resource
    from cifar_lit.share import load_model, predict

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    model = load_model({run!r})
    list(predict(model, {first!r}))
    before = peak()
    count = sum(answer.error is None for answer in predict(model, {folder!r}))
    print(count, (peak() - before) // 1024)
"""


def test_ten_thousand_pictures_are_not_held_in_memory(run, tmp_path):
    folder = tmp_path / 'many'
    folder.mkdir()
    first = folder / '0.jpg'
    noise = Image.effect_noise((400, 400), 90)  # 디코딩하면 0.5 MB, 모두 5 GB
    noise.convert('RGB').save(first, quality=30)
    for k in range(1, 10_000):
        os.link(first, folder / f'{k}.jpg')
    body = MANY.format(run=str(run), first=str(first), folder=str(folder))
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(body)],
        cwd=tmp_path,
        env=ENV,
        capture_output=True,
        text=True,
    )
    count, grown = map(int, done.stdout.split())
    assert count == 10_000 and grown < 200, f'{grown} MB'


def test_unwritable_and_unknown_targets(run):
    unwritable = '/proc/none/m.onnx'
    assert f'{unwritable}에 쓸 수 없습니다' in call('export', run, unwritable)
    assert '.onnx나 .safetensors' in call('export', run, 'm.h5')
    assert '체크포인트를 열 수 없습니다' in call('classify', 'nothing.ckpt', 'x.png')


@pytest.fixture(scope='module')
def page_path(run, tmp_path_factory):
    page_path = tmp_path_factory.mktemp('report') / 'report.html'
    assert call('report', run, '--no-wandb', '--output', page_path) is None
    return page_path


PICTURES = """
images => images.map(i => [i.naturalWidth > 100, i.alt.length > 0, i.currentSrc])
"""


@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_report_opens_from_disk(browser, page_path, width, scheme):
    viewport = {'width': width, 'height': 900}
    page = browser.new_context(viewport=viewport, color_scheme=scheme).new_page()
    problems, requests = [], []
    page.on('console', lambda message: problems.append(message.text))
    page.on('pageerror', lambda error: problems.append(str(error)))
    page.on('request', lambda request: requests.append(request.url))
    page.goto(page_path.as_uri())
    outside = [url for url in requests if not url.startswith('data:')]
    assert problems == [] and outside == [page_path.as_uri()]
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    pictures = page.locator('img').evaluate_all(PICTURES)
    assert len(pictures) == 4 and all(wide and alt for wide, alt, _ in pictures)
    dark = re.findall(r'srcset="([^"]+)"', page_path.read_text(encoding='utf-8'))
    for _, _, source in pictures:
        assert (source in dark) == (scheme == 'dark')


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


@contextmanager
def app(run, cwd):
    "`cifar-lit app`이 연 포트"
    port = free_port()
    with subprocess.Popen(
        [*COMMAND, 'app', str(run), '--port', str(port)],
        cwd=cwd,
        env={**ENV, 'no_proxy': '127.0.0.1', 'PYTHONUNBUFFERED': '1'},
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
        page, urls = browser.new_page(), []
        page.on('request', lambda request: urls.append(request.url))
        page.goto(f'http://127.0.0.1:{port}')
        page.wait_for_selector('input[type=file]', state='attached')
        page.set_input_files('input[type=file]', album / 'plain.png')
        page.wait_for_selector('text=/\\d%/')
        [expected] = predict(run, album / 'plain.png')
        assert expected.top[0][0] in page.inner_text('body')
        page.get_by_label('Remove Image').first.click()
        page.set_input_files('input[type=file]', album / 'truncated.png')
        page.wait_for_selector('text=truncated.png은(는) 사진으로 읽을 수 없습니다')
        hosts = {url.split('/')[2] for url in urls if url.startswith('http')}
        assert hosts == {f'127.0.0.1:{port}'}
        if sys.platform == 'linux':  # 다른 컴퓨터에서는 보이지 않는다.
            listening = Path('/proc/net/tcp').read_text()
            assert f'00000000:{port:04X}' not in listening
        assert '에서 열 수 없습니다' in call('app', run, '--port', port)
