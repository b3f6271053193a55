"""(마) 부르는 데 드는 시간: `import torch`와 나란히, 저마다 새 프로세스에서."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from common import draw_bars, faster_row, interleave, middle, pick, row, seconds

TITLE = '불러오기'
STATEMENTS = (
    'pass',
    'import torch',
    'import torchvision',
    'import lightning.pytorch',
    'import cifar_lit.data',
)
CALLS = ('cifar-lit --help', 'cifar-lit tutorial --help')
NAMES = STATEMENTS + CALLS
# --quick이면 뺀다.
SLOW = ('import torchvision', 'import lightning.pytorch', 'cifar-lit tutorial --help')


def command(name):
    if name in STATEMENTS:
        return [sys.executable, '-c', name]
    script = Path(sys.executable).with_name('cifar-lit')
    return [sys.executable, str(script), *name.split()[1:]]


def run(name):
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return seconds(lambda: subprocess.run(command(name), check=True, **quiet))


def measure(source, quick):
    names = [name for name in NAMES if not (quick and name in SLOW)]
    runs = {name: partial(run, name) for name in names}
    return interleave(runs, 1 if quick else 7, warm=not quick)


def rows(samples):
    made = []
    for name in NAMES:
        if found := pick(samples, name=name):
            spent = middle(found)
            target = ('1초 미만', spent < 1) if name == 'cifar-lit --help' else ()
            made.append(row(name, f'{spent:.2f}초', *target))
    return made + [
        faster_row(samples, 'import cifar_lit.data', 'import torch'),
        faster_row(samples, 'cifar-lit --help', 'import torch'),
    ]


def draw(samples, ax):
    names = list(dict.fromkeys(sample['name'] for sample in samples))
    draw_bars(ax, samples, names, lambda sample: sample['seconds'], 'seconds')
