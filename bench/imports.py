"""(마) 부르는 데 드는 시간: `import torch`와 나란히, 저마다 새 프로세스에서."""
import subprocess, sys
from pathlib import Path

from common import draw_bars, faster_row, interleave, middle, pick, row, seconds

TITLE = '불러오기'
COMMANDS = {name: [sys.executable, '-c', name] for name in ('pass', 'import torch', 'import torchvision', 'import lightning.pytorch', 'import cifar_lit.data')}
COMMANDS |= {name: [sys.executable, str(Path(sys.executable).with_name('cifar-lit')), *name.split()[1:]] for name in ('cifar-lit --help', 'cifar-lit tutorial --help')}


def measure(source, quick):
    def run(args): return seconds(lambda: subprocess.run(args, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return interleave({name: lambda args=args: run(args) for name, args in COMMANDS.items()}, 1 if quick else 7)


def rows(samples):
    made = [row(name, f'{middle(pick(samples, name=name)):.2f}초') for name in COMMANDS]
    made[list(COMMANDS).index('cifar-lit --help')].update(target='1초 미만', met=middle(pick(samples, name='cifar-lit --help')) < 1)
    return made + [faster_row(samples, 'import cifar_lit.data', 'import torch'), faster_row(samples, 'cifar-lit --help', 'import torch')]


def draw(samples, ax): draw_bars(ax, samples, list(COMMANDS), lambda s: s['seconds'], 'seconds')
