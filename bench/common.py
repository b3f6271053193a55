"""모든 벤치마크가 함께 쓰는 것: 번갈아 재기, 비율, 표, 그림."""

import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import lightning.pytorch as pl
import torch

from cifar_lit.data import CIFAR10DataModule
from cifar_lit.parts.hardware import best_precision, tune_cpu

SCRATCH = Path(__file__).with_name('out')  # git이 보지 않는 폴더
LIBRARIES = ('torch', 'torchvision', 'lightning', 'torchmetrics', 'wandb')


def prepare():
    # 이 설정이 있으면 프로세스마다 라이브러리를 다시 컴파일한다. 보통의 셸에는 없다.
    os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore')
    SCRATCH.mkdir(exist_ok=True)
    tune_cpu()


def machine():
    capabilities = torch.cpu.get_capabilities()
    return dict(
        processor=capabilities.get('cpu_name', platform.processor()),
        capability=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        precision=best_precision(),
        python=platform.python_version(),
        versions={name: version(name) for name in LIBRARIES},
    )


def load(source, batch_size=32, **settings):
    dm = CIFAR10DataModule(batch_size, source=source, **settings)
    dm.prepare_data()
    dm.setup()
    return dm


def reuse(source, batch_size, **settings):
    "이미 읽은 출처 `source`로 만든 `CIFAR10DataModule`"
    dm = CIFAR10DataModule(batch_size, source='toy', **settings)
    dm.source = source
    dm.setup()
    return dm


def quiet_trainer(accelerator='cpu', **settings):
    "화면에 아무것도 쓰지 않는 `Trainer`"
    return pl.Trainer(
        accelerator=accelerator,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def training_only(**settings):
    "검증도 저장도 하지 않는 `Trainer`"
    return quiet_trainer(
        precision=best_precision(),
        limit_val_batches=0,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        **settings,
    )


def fit(model, dm, quick, precision=None):
    "두 에포크(`quick`이면 열 스텝)를 저장하지 않고 학습한 `Trainer`"
    off = dict.fromkeys(('logger', 'enable_checkpointing'), False)
    steps = ('limit_train_batches', 'limit_val_batches', 'limit_test_batches')
    settings = off | dict.fromkeys(steps, 10) if quick else off
    precision = precision or best_precision()
    epochs = 1 if quick else 2
    trainer = quiet_trainer(precision=precision, max_epochs=epochs, **settings)
    trainer.fit(model, datamodule=dm)
    return trainer


def seconds(work):
    "`work()`에 걸린 벽시계 시간, 초"
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleave(runs, repeats, *, warm=True, **labels):
    """이름마다 초를 돌려주는 함수를 A B A B로 `repeats`번 부른다.

    `warm`이면 준비가 섞이는 맨 처음 한 번은 버린다.
    """
    if warm:
        for run in runs.values():
            run()
    samples = []
    for repeat in range(repeats):
        for name, run in runs.items():
            spent = float(f'{run():.5g}')
            samples.append(dict(name=name, repeat=repeat, **labels, seconds=spent))
    return samples


def in_new_process(script, *arguments):
    "새 프로세스가 마지막 줄에 쓴 JSON"
    path = Path(__file__).with_name(script)
    command = [sys.executable, path, *arguments]
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def pick(samples, **wanted):
    "`wanted`의 값이 모두 같은 표본"
    return [sample for sample in samples if wanted.items() <= sample.items()]


def middle(samples, key='seconds'):
    return statistics.median(sample[key] for sample in samples)


def faster(samples, name, base, key='seconds'):
    """`base`보다 몇 배 빠른가.

    같은 차례에 잰 것끼리 나눈 비의 중앙값, 가장 작은 것, 가장 큰 것.
    """
    pairs = zip(pick(samples, name=name), pick(samples, name=base), strict=True)
    ratios = [theirs[key] / ours[key] for ours, theirs in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)


def spread(values):
    "평균 ± 표준편차"
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'


def row(what, value, target='', met=None):
    return dict(what=what, value=value, target=target, met=met)


def faster_row(samples, name, base, target=None, key='seconds', label=None):
    ratio, low, high = faster(samples, name, base, key)
    what = label or f'{name} / {base}'
    value = f'{ratio:.3g}배 ({low:.3g}~{high:.3g})'
    if target is None:
        return row(what, value)
    return row(what, value, f'{target}배 이상', ratio >= target)


def draw_bars(ax, samples, names, value, unit):
    "이름마다 막대 하나(중앙값)와 표본의 점"
    for k, name in enumerate(names):
        values = [value(sample) for sample in pick(samples, name=name)]
        ax.barh(k, statistics.median(values), color='#4477aa', height=0.6)
        ax.plot(values, [k] * len(values), 'o', color='black', markersize=3, alpha=0.5)
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel=unit)
    ax.invert_yaxis()


def draw_lines(ax, samples, names, x, value, unit):
    "이름마다 선 하나(중앙값)"
    for name in names:
        drawn = pick(samples, name=name)
        places = sorted({sample[x] for sample in drawn})
        heights = []
        for place in places:
            values = [value(sample) for sample in pick(drawn, **{x: place})]
            heights.append(statistics.median(values))
        ax.plot(places, heights, 'o-', label=name)
    ax.set(xscale='log', yscale='log', xlabel=x, ylabel=unit)
    ax.legend(frameon=False, fontsize=8)
