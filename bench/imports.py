"""(마) 부르는 데 드는 시간: `import torch`와 나란히, 저마다 새 프로세스에서."""

import subprocess
import sys
from pathlib import Path

from common import draw_bars, faster_row, interleave, middle, pick, row, seconds

TITLE = '불러오기'
COMMANDS = {
    name: [sys.executable, '-c', name]
    for name in (
        'pass',
        'import torch',
        'import torchvision',
        'import lightning.pytorch',
        'import cifar_lit.data',
    )
}
SLOW = (
    'import torchvision',
    'import lightning.pytorch',
    'cifar-lit tutorial --help',
)  # QUICK이면 뺀다.
COMMANDS |= {
    name: [
        sys.executable,
        str(Path(sys.executable).with_name('cifar-lit')),
        *name.split()[1:],
    ]
    for name in ('cifar-lit --help', 'cifar-lit tutorial --help')
}


def measure(source, quick):
    def run(args):
        return seconds(
            lambda: subprocess.run(
                args, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )

    runs = {
        name: lambda args=args: run(args)
        for name, args in COMMANDS.items()
        if not (quick and name in SLOW)
    }
    return interleave(runs, 1 if quick else 7, warm=not quick)


def rows(samples):
    spent = {
        name: middle(found) for name in COMMANDS if (found := pick(samples, name=name))
    }
    goal = {'cifar-lit --help': ('1초 미만', spent['cifar-lit --help'] < 1)}
    made = [
        row(name, f'{value:.2f}초', *goal.get(name, ()))
        for name, value in spent.items()
    ]
    return made + [
        faster_row(samples, 'import cifar_lit.data', 'import torch'),
        faster_row(samples, 'cifar-lit --help', 'import torch'),
    ]


def draw(samples, ax):
    draw_bars(
        ax,
        samples,
        list(dict.fromkeys(s['name'] for s in samples)),
        lambda s: s['seconds'],
        'seconds',
    )
