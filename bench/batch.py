"""(사) 전체 배치를 키울 때의 학습률: 그대로, 제곱근배, 배수.

두 에포크를 학습한 검증 정확도, 시드 셋의 평균 ± 표준편차. 배치 32의 학습률은 Adam이
`LitModel`의 기본(2e-4), 모멘텀 SGD가 0.01이고 더 고르지 않았다.
"""

import statistics

import lightning.pytorch as pl
import torch
from common import fit, load, pick, reuse, row, spread

from cifar_lit.model import LitModel

TITLE = '전체 배치와 학습률'
PLOTS = ('Adam', 'SGD')
BASE = 32
RATES = {'Adam': 2e-4, 'SGD': 1e-2}  # 배치 32에서
POWERS = {'same': 0.0, 'square root': 0.5, 'linear': 1.0}
KOREAN = {'same': '그대로', 'square root': '√배', 'linear': '배수'}
SIZES = (256, 1024)


class WithSGD(LitModel):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.learning_rate, 0.9)


def trained(source, optimizer, batch_size, name, seed, quick):
    "표본 하나"
    rate = RATES[optimizer] * (batch_size / BASE) ** POWERS[name]
    pl.seed_everything(seed, verbose=False)
    dm = reuse(source, batch_size)
    kind = LitModel if optimizer == 'Adam' else WithSGD
    model = kind(dm.input_shape, dm.num_classes, rate, channels_last=True)
    trainer = fit(model, dm, quick)
    accuracy = round(100 * trainer.callback_metrics['val_acc'].item(), 2)
    return dict(
        optimizer=optimizer,
        name=name,
        batch=batch_size,
        seed=seed,
        rate=float(f'{rate:.3g}'),
        accuracy=accuracy,
    )


def measure(source, quick):
    source = load(source).source
    sizes, seeds = ((256,), 1) if quick else (SIZES, 3)
    plan = [(BASE, 'same'), *((size, name) for size in sizes for name in POWERS)]
    samples = []
    for seed in range(seeds):
        for size, name in plan:
            for optimizer in RATES:
                samples.append(trained(source, optimizer, size, name, seed, quick))
    return samples


def accuracy_row(found):
    sample = found[0]
    what = f'{sample["optimizer"]}, 배치 {sample["batch"]:,}'
    if sample['batch'] > BASE:
        what += f', 학습률 {KOREAN[sample["name"]]}'
    accuracy = spread([each['accuracy'] for each in found])
    return row(f'{what} ({sample["rate"]:.2g})', f'{accuracy} %')


def rows(samples):
    made = []
    for optimizer in PLOTS:
        for size in (BASE, *SIZES):
            for name in POWERS:
                found = pick(samples, optimizer=optimizer, batch=size, name=name)
                if found:
                    made.append(accuracy_row(found))
    return made


def mean(samples):
    return statistics.mean(sample['accuracy'] for sample in samples)


def draw(samples, axes):
    for ax, optimizer in zip(axes, PLOTS):
        ours = pick(samples, optimizer=optimizer)
        start = mean(pick(ours, batch=BASE))
        for name in POWERS:
            found = pick(ours, name=name)
            sizes = sorted({sample['batch'] for sample in found} - {BASE})
            heights = [mean(pick(found, batch=size)) for size in sizes]
            ax.plot([BASE, *sizes], [start, *heights], 'o-', label=name)
        ax.set(xscale='log', xlabel='global batch', ylabel='validation accuracy, %')
        ax.set_title(optimizer)
        ax.legend(frameon=False, fontsize=8, title='learning rate')
