"""엔터를 친 때부터 첫 스텝까지: `import torch`와 나란히, 저마다 새 프로세스에서.

`cifar-lit tutorial`과 거기에 `--recipe quick`을 준 것이 첫 스텝을 시작할 때까지이다.
라이브러리를 부르고, 캐시된 사진을 읽고, W&B(오프라인)를 열고, 검증을 두 배치 해 본다.
`import lightning.pytorch`는 쓰지 않을 모듈을 미루지 않을 때의 값이다. 설치한 뒤 처음
부를 때는 `.pyc`를 만드느라 더 걸린다.
목표는 `import torch`가 2.9초인 컴퓨터에서 6초였으므로, 컴퓨터가 달라도 비교할 수 있게
`import torch`의 2.07배로 적는다.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from common import draw_bars, faster, interleave, load, middle, pick, row, seconds

TITLE = '첫 스텝까지'
TORCH, LIGHTNING = 'import torch', 'import lightning.pytorch'
COMMANDS = {'cifar-lit tutorial': (), '--recipe quick': ('--recipe', 'quick')}
NAMES = (TORCH, LIGHTNING, *COMMANDS)


def words(name, source):
    if name not in COMMANDS:
        return [sys.executable, '-c', name]
    script = str(Path(sys.executable).with_name('cifar-lit'))
    stop = '--trainer.callbacks+=first_step.StopAtFirstStep'
    place = '--data.source', str(Path(source).resolve())
    return [script, 'tutorial', *COMMANDS[name], *place, stop]


def run(name, source, folder):
    here = str(Path(__file__).parent)  # first_step.py가 있는 곳
    settings = os.environ | {'PYTHONPATH': here, 'WANDB_MODE': 'offline'}
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    command = words(name, source)
    done = dict(check=True, env=settings, **quiet)
    return seconds(lambda: subprocess.run(command, **done))


def measure(source, quick):
    load(source)  # 폴더의 사진을 캐시에 둔다.
    with TemporaryDirectory() as folder:
        runs = {name: partial(run, name, source, folder) for name in NAMES}
        return interleave(runs, 1 if quick else 7, warm=not quick)


def rows(samples):
    made = []
    for name in NAMES:
        made.append(row(name, f'{middle(pick(samples, name=name)):.1f}초'))
    for name in COMMANDS:
        ratio, low, high = faster(samples, TORCH, name)
        value = f'{ratio:.2f}배 ({low:.2f}~{high:.2f})'
        target = '2.07배 이하', ratio <= 2.07
        made.append(row(f'{name} / {TORCH}, 시간', value, *target))
    return made


def draw(samples, ax):
    draw_bars(ax, samples, NAMES, lambda sample: sample['seconds'], 'seconds')
