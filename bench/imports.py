"""(마) 부르는 데 드는 시간: `import torch`와 나란히, 저마다 새 프로세스에서.

먼저 한 번씩 불러 `.pyc`를 만들어 둔다. 설치한 뒤 처음 부를 때는 더 걸린다.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from common import draw_bars, faster, faster_row, interleave, middle, pick, row, seconds
from PIL import Image

from cifar_lit.parts.nets import ConvNet
from cifar_lit.share import export_onnx

TITLE = '불러오기'
STATEMENTS = (
    'pass',
    'import torch',
    'import torchvision',
    'import lightning.pytorch',
    'import cifar_lit.data',
)
CALLS = ('cifar-lit --help', 'cifar-lit tutorial --help')
ONNX, CHECKPOINT = 'cifar-lit classify model.onnx', 'cifar-lit classify net.ckpt'
NAMES = STATEMENTS + CALLS + (ONNX, CHECKPOINT)
# --quick이면 뺀다.
SLOW = ('import torchvision', 'import lightning.pytorch', 'cifar-lit tutorial --help')


def command(name):
    if name in STATEMENTS:
        return [sys.executable, '-c', name]
    script = Path(sys.executable).with_name('cifar-lit')
    picture = ['one.jpg'] if name in (ONNX, CHECKPOINT) else []
    return [sys.executable, str(script), *name.split()[1:], *picture]


def run(name, folder):
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    return seconds(lambda: subprocess.run(command(name), check=True, **quiet))


def make_models(folder):
    "배우지 않은 신경망의 체크포인트와 ONNX, 사진 한 장"
    net = ConvNet((3, 32, 32), 10)
    saved = {
        'state_dict': {f'net.{name}': w for name, w in net.state_dict().items()},
        'hyper_parameters': {'input_shape': (3, 32, 32), 'num_classes': 10},
        'epoch': 0,
        'global_step': 1,
    }
    torch.save(saved, folder / 'net.ckpt')
    export_onnx(folder / 'net.ckpt', folder / 'model.onnx')
    Image.effect_noise((1000, 750), 90).convert('RGB').save(folder / 'one.jpg')


def measure(source, quick):
    names = [name for name in NAMES if not (quick and name in SLOW)]
    with TemporaryDirectory() as folder:
        make_models(Path(folder))
        runs = {name: partial(run, name, folder) for name in names}
        return interleave(runs, 1 if quick else 7, warm=not quick)


def classify_rows(samples):
    "사진 한 장의 답을 받기까지. 재지 않았으면 빈 목록"
    if not pick(samples, name=ONNX):
        return []
    spent = middle(pick(samples, name=ONNX))
    ratio, low, high = faster(samples, 'import torch', CHECKPOINT)
    value = f'{ratio:.3g}배 ({low:.3g}~{high:.3g})'
    return [
        row(ONNX, f'{spent:.2f}초', '3초 미만', spent < 3),
        row(f'{CHECKPOINT} 시간 / import torch', value, '1.5배 이하', ratio <= 1.5),
    ]


def rows(samples):
    made = []
    for name in NAMES:
        found = pick(samples, name=name)
        if found and name != ONNX:
            spent = middle(found)
            target = ('1초 미만', spent < 1) if name == 'cifar-lit --help' else ()
            made.append(row(name, f'{spent:.2f}초', *target))
    return made + [
        faster_row(samples, 'import cifar_lit.data', 'import torch'),
        faster_row(samples, 'cifar-lit --help', 'import torch'),
        *classify_rows(samples),
    ]


def draw(samples, ax):
    names = list(dict.fromkeys(sample['name'] for sample in samples))
    draw_bars(ax, samples, names, lambda sample: sample['seconds'], 'seconds')
