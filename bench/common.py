"""모든 벤치마크가 함께 쓰는 것: 번갈아 재기, 비율, 표, 그림."""

import json
import logging
import platform
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

from cifar_lit.data import CIFAR10DataModule
from cifar_lit.train import best_precision, tune_cpu


def prepare():
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore')
    tune_cpu()


def machine():
    return dict(
        processor=torch.cpu.get_capabilities().get('cpu_name', platform.processor()),
        capability=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        precision=best_precision(),
        python=platform.python_version(),
        versions={
            name: version(name)
            for name in ('torch', 'torchvision', 'lightning', 'torchmetrics', 'wandb')
        },
    )


def load(source, batch_size=32, **settings):
    dm = CIFAR10DataModule(batch_size, source=source, **settings)
    dm.prepare_data(), dm.setup()
    return dm


def seconds(work):
    "`work()`에 걸린 벽시계 시간, 초"
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleave(runs, repeats, *, warm=True, **more):
    "이름마다 초를 돌려주는 함수를 A B A B로 `repeats`번 부른다. `warm`이면 준비가 섞이는 맨 처음 한 번은 버린다."
    for run in runs.values() if warm else ():
        run()
    return [
        dict(name=name, repeat=repeat, **more, seconds=float(f'{run():.5g}'))
        for repeat in range(repeats)
        for name, run in runs.items()
    ]


def in_new_process(script, *args):
    "새 프로세스가 마지막 줄에 쓴 JSON"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def pick(samples, **where):
    return [
        s for s in samples if all(s.get(key) == value for key, value in where.items())
    ]


def middle(samples, key='seconds'):
    return statistics.median(s[key] for s in samples)


def faster(samples, name, base, key='seconds'):
    "`base`보다 몇 배 빠른가. 같은 차례에 잰 것끼리 나눈 비의 중앙값, 가장 작은 것, 가장 큰 것"
    ratios = [
        b[key] / a[key]
        for a, b in zip(pick(samples, name=name), pick(samples, name=base), strict=True)
    ]
    return statistics.median(ratios), min(ratios), max(ratios)


def spread(values):
    return (
        f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'
        if len(values) > 1
        else f'{values[0]:.1f}'
    )


def row(what, value, target='', met=None):
    return dict(what=what, value=value, target=target, met=met)


def faster_row(samples, name, base, target=None, key='seconds', label=None):
    ratio, low, high = faster(samples, name, base, key)
    return row(
        label or f'{name} / {base}',
        f'{ratio:.3g}배 ({low:.3g}~{high:.3g})',
        f'{target}배 이상' if target else '',
        ratio >= target if target else None,
    )


def draw_bars(ax, samples, names, value, unit):
    "이름마다 막대 하나(중앙값)와 표본의 점"
    for k, name in enumerate(names):
        values = [value(s) for s in pick(samples, name=name)]
        ax.barh(k, statistics.median(values), color='#4477aa', height=0.6)
        ax.plot(values, [k] * len(values), 'o', color='black', markersize=3, alpha=0.5)
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel=unit)
    ax.invert_yaxis()


def draw_lines(ax, samples, names, x, value, unit):
    "이름마다 선 하나(중앙값)"
    for name in names:
        places = sorted({s[x] for s in pick(samples, name=name)})
        ax.plot(
            places,
            [
                statistics.median(
                    value(s) for s in pick(samples, name=name, **{x: place})
                )
                for place in places
            ],
            'o-',
            label=name,
        )
    ax.set(xscale='log', yscale='log', xlabel=x, ylabel=unit)
    ax.legend(frameon=False, fontsize=8)
