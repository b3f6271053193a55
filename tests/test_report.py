"""평가 보고서: 아주 작은 폴더, 합성곱이 없는 신경망, 브라우저."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from given import ENV, toy_album
from torch import nn

from cifar_lit.evaluate import evaluate
from cifar_lit.model import LitModel
from cifar_lit.parts.files import InputError
from cifar_lit.parts.insight import grad_cam, label_issues
from cifar_lit.parts.report import report

MAIN = 'import sys; from cifar_lit.cli import main; main(sys.argv[1:])'


class Flat(nn.Sequential):
    "합성곱이 없는 신경망"

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))


def call(folder, *arguments):
    "새 프로세스에서 부른 `cifar-lit`의 출력"
    command = [sys.executable, '-c', MAIN, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**ENV, 'PYTHONPATH': str(Path(__file__).parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "합성곱이 없는 신경망을 사진 60장으로 조금 학습한 폴더. 검증은 두 장뿐이다."
    folder = tmp_path_factory.mktemp('report')
    toy_album(folder / 'photos')
    call(
        folder,
        *('tutorial', '--data.source', 'photos', '--data.val_size', 2),
        *('--data.batch_size', 8, '--trainer.max_epochs', 1),
        *('--model.net', 'test_report.Flat', '--run_dir', 'run'),
    )
    return folder


@pytest.fixture(scope='module')
def page_path(folder):
    printed = call(
        folder, 'report', 'run', '--no-wandb', '--test', '--output', 'out/report.html'
    )
    assert printed == '보고서: out/report.html\n'
    return folder / 'out/report.html'


def test_report_says_what_it_cannot_show(page_path):
    text = page_path.read_text(encoding='utf-8')
    assert 'Flat에는 합성곱(nn.Conv2d)이 없어 Grad-CAM을 그릴 수 없습니다' in text
    assert '라벨이 하나도 없는 클래스가 있습니다' in text
    assert 'test 30장에서 정확도' in text and 'Traceback' not in text


def test_functions_refuse_what_the_report_cannot_show(folder, monkeypatch):
    monkeypatch.chdir(folder)
    val, test = (evaluate('run', split=split, net=Flat()) for split in ('val', 'test'))
    with pytest.raises(InputError, match='val에 라벨이 하나도 없는 클래스'):
        label_issues(val)
    assert len(label_issues(test)) < len(test) == 30
    with pytest.raises(InputError, match='Flat에는 합성곱'):
        grad_cam(Flat(), val.images, val.labels)


def test_bad_input_is_told_before_anything_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr('cifar_lit.parts.report.run_notebook', None)
    with pytest.raises(InputError, match="split='train'"):
        report('run', split='train', wandb=False)
    with pytest.raises(InputError, match='moved'):
        report('run', source='moved', wandb=False)
    with pytest.raises(InputError, match='none: 체크포인트를 열 수 없습니다'):
        report('run', baseline='none', wandb=False)


ALT = 'images => images.map(image => [image.naturalWidth > 100, image.alt])'


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
    pictures = page.locator('img').evaluate_all(ALT)
    names = [alt for wide, alt in pictures if wide]
    assert names == ['혼동 행렬', '손실이 큰 사진', '신뢰도 그림', '학습 곡선']
    color = page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert (color == 'rgb(255, 255, 255)') == (scheme == 'light')


def test_report_of_a_checkpoint_with_odd_names(folder, tmp_path, monkeypatch):
    "다른 곳으로 옮긴 체크포인트, HTML로 읽힐 클래스의 이름"
    monkeypatch.chdir(tmp_path)
    name = '<img src=x onerror=alert(1)>'
    shutil.copytree(folder / 'photos', 'photos')
    saved = torch.load(folder / 'run/checkpoints/best.ckpt', weights_only=True)
    data = saved['datamodule_hyper_parameters']
    first, *others = data['classes']
    for split in ('train', 'test'):
        Path('photos', split, first).rename(Path('photos', split, name))
    with pytest.raises(
        InputError, match=f'모델이 배운 {first} 자리에 {re.escape(name)}'
    ):
        evaluate(folder / 'run', source='photos')
    data['classes'] = [f'{name}é', *others]
    for split in ('train', 'test'):  # 같은 글자를 다르게 적은 것(NFD)
        Path('photos', split, name).rename(Path('photos', split, f'{name}e\u0301'))
    saved['state_dict'] = LitModel((3, 32, 32), 3).state_dict()
    saved.pop('net', None)  # config.yaml 없이도 되살아나는 신경망
    torch.save(saved, 'alone.ckpt')
    page = Path(report('alone.ckpt', wandb=True)).read_text(encoding='utf-8')
    assert name not in page and '&lt;img src=x onerror=alert(1)&gt;' in page
