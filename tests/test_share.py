"""사진을 분류하고 모델을 건네는 일 가운데 노트북에 담을 수 없는 것.

별난 사진, 악의가 있는 파일, 큰 폴더, 진짜 브라우저, torch 없이 도는 파일.
"""

import http.server
import json
import os
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

import nbformat
import numpy as np
import pytest
import torch
from given import ENV
from PIL import Image
from torchvision.models import squeezenet1_1

from cifar_lit.cli import main
from cifar_lit.evaluate import evaluate
from cifar_lit.parts.files import InputError
from cifar_lit.parts.pictures import read_picture
from cifar_lit.parts.runner import ask_files
from cifar_lit.parts.toy import toy_pictures
from cifar_lit.share import (
    choose_threshold,
    classify,
    export_onnx,
    export_safetensors,
    load_model,
    predict,
)

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
    assert not call('classify', run, plain)


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
        assert np.array_equal(load_model(best)(pictures), load_model(run)(pictures))
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
    assert np.array_equal(alone(images), answer)
    for write, name in ((export_onnx, 'm.onnx'), (export_safetensors, 'm.safetensors')):
        again = load_model(write('run', name), net=squeezenet1_1(num_classes=10))
        np.testing.assert_allclose(again(images), answer, atol=1e-4)


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
    for write in (export_onnx, export_safetensors):
        with pytest.raises(InputError, match='m.h5: 이름이 .*로 끝나야'):
            write(run, 'm.h5')
    assert '체크포인트를 열 수 없습니다' in call('classify', 'nothing.ckpt', 'x.png')


def test_files_of_others_are_not_overwritten(run, tmp_path):
    readme, script = tmp_path / 'README.md', tmp_path / 'classify.py'
    for path, write, name in (
        (readme, export_safetensors, 'm.safetensors'),
        (script, export_onnx, 'm.onnx'),
    ):
        path.write_text('내가 쓴 것')
        with pytest.raises(InputError, match=f'{path.name}에 이미 다른 파일이'):
            write(run, tmp_path / name)
        assert path.read_text() == '내가 쓴 것' and not (tmp_path / name).exists()
        path.unlink()
        write(run, tmp_path / name)
        write(run, tmp_path / name)  # 우리가 쓴 것은 새로 쓴다.
        assert path.stat().st_size > 500


def test_card_says_what_was_measured(run, tmp_path):
    from huggingface_hub import ModelCard

    def card_of(checkpoint):
        export_safetensors(checkpoint, tmp_path / 'm.safetensors')
        return ModelCard.load(tmp_path / 'README.md')

    measured = card_of(run)
    found = {(x.metric_name, x.dataset_name) for x in measured.data.eval_results}
    assert ('test_acc', 'toy') in found and len(found) == 4
    assert '장난감 그림으로 학습했습니다' in measured.text
    shutil.copy(run / 'checkpoints/best.ckpt', tmp_path / 'alone.ckpt')
    bare = card_of(tmp_path / 'alone.ckpt')
    assert bare.data.eval_results is None and '잰 것이 없습니다' in bare.text
    # 테스트는 best.ckpt로 했으므로 last.ckpt의 카드에는 없다.
    names = {
        x.metric_name for x in card_of(run / 'checkpoints/last.ckpt').data.eval_results
    }
    assert names == {'val_acc', 'val_loss'}


def test_card_shows_names_as_they_are(run, tmp_path):
    saved = torch.load(run / 'checkpoints/best.ckpt', weights_only=True)
    data = saved['datamodule_hyper_parameters']
    data['classes'] = ['a|b', '<i>', *data['classes'][2:]]
    data['source_used'] = './toy'  # 이름만 toy인 사진 폴더
    torch.save(saved, tmp_path / 'alone.ckpt')
    export_safetensors(tmp_path / 'alone.ckpt', tmp_path / 'm.safetensors')
    card = (tmp_path / 'README.md').read_text(encoding='utf-8')
    assert '| 클래스 | a\\|b, &lt;i&gt;, ' in card
    assert '장난감' not in card and '| 데이터 | toy/ |' in card
    data['source_used'] = '<i>x'
    torch.save(saved, tmp_path / 'alone.ckpt')
    export_safetensors(tmp_path / 'alone.ckpt', tmp_path / 'm.safetensors')
    card = (tmp_path / 'README.md').read_text(encoding='utf-8')
    assert '# &lt;i&gt;x 이미지 분류기' in card


@pytest.fixture
def odd_name(album):
    "UTF-8이 아닌 이름(CP949)의 사진"
    name = os.fsdecode('사진.png'.encode('cp949'))
    shutil.copy(album / 'plain.png', album / name)
    return str(album / name)


@pytest.mark.parametrize('as_json', [False, True])
def test_names_that_are_not_utf8_are_printed(run, odd_name, as_json, capsys):
    assert classify(run, [odd_name], as_json=as_json) == 0
    assert '\\udcbb' in capsys.readouterr().out


def test_runner_prints_names_that_are_not_utf8(onnx, odd_name, capsys):
    assert ask_files(onnx / 'model.onnx', [odd_name]) == 0
    assert '\\udcbb' in capsys.readouterr().out


def test_hidden_files_of_a_folder_are_not_asked(run, album, capsys):
    for path in BROKEN:
        (album / path).unlink()
    (album / '.cifar_lit').mkdir()
    for name in ('.cifar_lit/cache.npz', 'Thumbs.db'):
        (album / name).touch()
    (album / 'more').mkdir()
    assert classify(run, [album]) == 0
    assert classify(run, [album / '*']) == 1  # Thumbs.db는 이름을 대고 준 것이다.
    assert 'more' not in capsys.readouterr().err


@pytest.fixture(scope='module')
def onnx(run, tmp_path_factory):
    "ONNX와 `classify.py`가 든 폴더"
    folder = tmp_path_factory.mktemp('onnx')
    export_onnx(run, folder / 'model.onnx')
    return folder


BLOCKED = "import sys; sys.modules.update(dict.fromkeys(['torch', 'cifar_lit']));"


def python(code, *arguments, cwd):
    "새 프로세스에서 `code`를 돌린 것. `PYTHONPATH`의 라이브러리만 보인다."
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)],
        cwd=cwd,
        env=ENV,
        capture_output=True,
        text=True,
    )


ASK = (
    BLOCKED
    + """
import json
from classify import MODEL, ask, open_onnx, open_picture
model = open_onnx(MODEL)
for path in sys.argv[1:]:
    print(json.dumps([open_picture(path, 32).tolist(), ask(model, path)]))
loaded = {name for name, module in sys.modules.items() if module}
assert not {'torch', 'cifar_lit', 'lightning'} & loaded
"""
)


def save_photos(album):
    "디코딩하면서 줄이는 큰 JPEG, 누운 JPEG, 투명한 GIF와 회색"
    noise = Image.effect_noise((700, 500), 90).convert('RGB')
    noise.save(album / 'large.jpg')
    exif = Image.Exif()
    exif[0x0112] = 8
    noise.save(album / 'lying.jpg', exif=exif)
    noise.convert('P').save(album / 'clear.gif', transparency=0)
    noise.convert('LA').resize((40, 90)).save(album / 'la.webp')


def test_runner_answers_the_same_without_torch(run, onnx, album):
    save_photos(album)
    paths = [path for path in sorted(album.iterdir()) if path.name not in BROKEN]
    done = python(ASK, *paths, cwd=onnx)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for path, line, expected in zip(
        paths, lines, predict(run, paths, top_k=10), strict=True
    ):
        pixels, answers = json.loads(line)
        assert np.array_equal(pixels, read_picture(path, 32)), path
        assert answers == pytest.approx(dict(expected.top), abs=1e-5), path
        assert list(answers.values()) == sorted(answers.values(), reverse=True)


def test_runner_from_the_shell(onnx, album, tmp_path):
    command = [sys.executable, onnx / 'classify.py']

    def ask(*paths):
        return subprocess.run([*command, *paths], capture_output=True, text=True)

    both = ask(album / 'plain.png', album / 'bomb.png', album / 'script.eps')
    assert both.returncode == 1 and both.stdout.count('\n') == 1
    assert [line.split(':')[0] for line in both.stderr.splitlines()] == [
        str(album / 'bomb.png'),
        str(album / 'script.eps'),
    ]
    assert ask(album / 'plain.png').returncode == 0
    assert '쓰는 법' in ask().stderr
    shutil.copy(onnx / 'classify.py', tmp_path)
    command[1] = tmp_path / 'classify.py'
    alone = ask(album / 'plain.png')
    assert alone.returncode == 1 and alone.stderr.count('\n') == 1
    assert 'model.onnx 파일이 없습니다. classify.py와 같은 폴더에' in alone.stderr
    (tmp_path / 'model.onnx').write_bytes((onnx / 'model.onnx').read_bytes()[:5000])
    cut = ask(album / 'plain.png')
    assert cut.returncode == 1 and cut.stderr.count('\n') == 1
    assert 'model.onnx: 읽을 수 없는 모델입니다' in cut.stderr


LOADED = """
import sys
from cifar_lit.cli import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    assert not error.code, error.code
print(*{name.partition('.')[0] for name, module in sys.modules.items() if module})
"""
SLOW = 'lightning torchvision torchmetrics wandb pandas matplotlib jsonargparse'.split()


def loaded(*arguments, cwd):
    "`cifar-lit`이 끝났을 때 불려 있는 패키지"
    done = python(LOADED, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert '%' in done.stdout
    return set(done.stdout.splitlines()[-1].split())


def test_classify_does_not_import_what_it_does_not_need(run, onnx, album):
    plain = album / 'plain.png'
    packages = loaded('classify', onnx / 'model.onnx', plain, cwd=album)
    assert 'onnxruntime' in packages
    assert not packages & {'torch', 'requests', *SLOW}
    for model in (run, run / 'checkpoints/best.ckpt'):
        packages = loaded('classify', model, plain, cwd=album)
        assert 'torch' in packages and not packages & {'onnxruntime', *SLOW}


def test_unknown_below_the_threshold(run, album, capsys):
    plain = album / 'plain.png'
    assert not call('classify', run, plain, '--threshold', 1)
    assert capsys.readouterr().out.startswith('모름:')
    assert not call('classify', run, plain, '--threshold', 1, '--json')
    row = json.loads(capsys.readouterr().out)
    assert row['answer'] is None and len(row['top']) == 3
    assert not call('classify', run, plain, '--json')
    row = json.loads(capsys.readouterr().out)
    assert row['answer'] == row['top'][0]['class']
    assert 'threshold=1.5' in call('classify', run, plain, '--threshold', 1.5)
    assert 'top_k=0' in call('classify', run, plain, '--top_k', 0)


def test_threshold_is_the_lowest_that_reaches():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    right = np.array([1, 1, 0, 1, 1, 0], bool)
    order = [3, 0, 5, 1, 4, 2]  # 순서는 상관없다.
    confidence, right = confidence[order], right[order]
    assert choose_threshold(confidence, right, 0.8, least=1) == 0.5
    assert choose_threshold(confidence, right, 0.9, least=1) == 0.8
    assert choose_threshold(confidence, right, 0.6, least=1) == 0.4
    for accuracy, least, best in ((0.9, 3, '80.0%'), (0.9, 7, '0.0%')):
        with pytest.raises(InputError, match=f'높은 정확도는 {best}'):
            choose_threshold(confidence, right, accuracy, least)
    # 확률이 같은 사진은 나눌 수 없다.
    with pytest.raises(InputError, match='50.0%'):
        choose_threshold(np.full(4, 0.9), np.array([1, 1, 0, 0]), 0.9, least=1)
    with pytest.raises(InputError, match='높은 정확도는 0.0%'):
        choose_threshold(np.array([]), np.array([], bool), 0.9, least=1)


def chapter_app():
    "05장이 쓰는 `app.py`"
    notebook = nbformat.read(Path(__file__).parent.parent / 'nbs/05_share.ipynb', 4)
    [cell] = [c for c in notebook.cells if 'onnx/app.py\n' in c.source[:60]]
    return cell.source.partition('\n')[2]


def test_the_page_of_the_space_answers_without_torch(run, onnx, album):
    pytest.importorskip('gradio')
    from gradio_client import Client, handle_file

    (onnx / 'app.py').write_text(chapter_app())
    port = str(free_port())
    code = f"{BLOCKED} sys.path.insert(0, '.'); import runpy; runpy.run_path('app.py')"
    variables = {'GRADIO_SERVER_PORT': port, 'GRADIO_ANALYTICS_ENABLED': 'False'}
    with subprocess.Popen(
        [sys.executable, '-c', code + '; import time; time.sleep(600)'],
        cwd=onnx,
        env={**ENV, **variables, 'no_proxy': '127.0.0.1', 'PYTHONUNBUFFERED': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            line = next((line for line in process.stdout if 'http' in line), '')
            assert port in line, process.poll()
            client = Client(f'http://127.0.0.1:{port}', verbose=False)
            answer = client.predict(
                handle_file(album / 'plain.png'), api_name='/classify'
            )
            [expected] = predict(run, album / 'plain.png')
            assert answer['label'] == expected.top[0][0]
        finally:
            process.terminate()


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
