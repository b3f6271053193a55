"""`quick` 조리법에 이르기까지 한 가지씩 더하기.

모두 배치 256으로 45스텝을 학습하고, 씨앗마다 모든 줄을 차례로 잰다.
잰 시간은 첫 스텝부터 마지막 스텝까지의 벽시계 시간(초)이고 데이터를 메모리에 올리는 시간은 빼며, 정확도는 평가 사진에서 잰 것이다.
"""

import statistics

import lightning.pytorch as pl
import torch
from common import draw_bars, load, pick, row, spread
from lightning.pytorch.callbacks import EMAWeightAveraging

from cifar_lit.model import LitModel
from cifar_lit.speed import FastModel, recipe_arguments, shrink
from cifar_lit.train import _Stopwatch, best_precision

STEPS = (
    'FastNet',
    '16 px',
    'whitening',
    'Muon',
    'one-cycle',
    'label smoothing',
    'flip at test',
    'weight averaging',
)
NAMES = ('ConvNet', *STEPS)
TITLE, SHAPE = '한 가지씩', (3, 32, 32)


class Partial(FastModel):
    "`FastModel`에서 아직 더하지 않은 것(`STEPS`의 `on` 뒤)을 뺀다."

    def __init__(self, on):
        settings = recipe_arguments('quick', 'model')
        super().__init__(
            SHAPE,
            10,
            **{
                **settings,
                'size': settings['size'] if '16 px' in on else 32,
                'label_smoothing': 0.2 if 'label smoothing' in on else 0.0,
            },
        )
        self.on = on
        if 'flip at test' not in on:
            self.net.forward = lambda x: self.net.logits(shrink(x, self.net.size))

    def on_fit_start(self):
        if 'whitening' in self.on:
            return super().on_fit_start()
        self.net.whiten.weight.requires_grad_(True), self.net.ready.fill_(True)

    def configure_optimizers(self):
        if 'Muon' not in self.on:
            return torch.optim.Adam(
                (p for p in self.parameters() if p.requires_grad), lr=1e-3, fused=True
            )
        made = super().configure_optimizers()
        if 'one-cycle' in self.on:
            return made
        for group, lr in zip(
            made['optimizer'].param_groups,
            (self.hparams.learning_rate, self.hparams.other_learning_rate),
        ):
            group['lr'] = lr
        return made['optimizer']


def build(count):
    return (
        Partial(STEPS[:count])
        if count
        else LitModel(SHAPE, 10, learning_rate=1e-3, channels_last=True, fused=True)
    )


def sample(dm, count, seed):
    pl.seed_everything(seed, verbose=False)
    model, watch = build(count), _Stopwatch()
    averaging = (
        [EMAWeightAveraging(decay=0.8)] if 'weight averaging' in STEPS[:count] else []
    )
    trainer = pl.Trainer(
        **recipe_arguments('quick', 'trainer'),
        precision=best_precision(),
        callbacks=[watch, *averaging],
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator='cpu',
    )
    trainer.fit(model, dm)
    accuracy = trainer.test(model, dm, verbose=False)[0]['test_acc']
    return dict(
        name=NAMES[count],
        repeat=seed,
        seconds=round(watch.time_elapsed('train'), 3),
        pictures=watch.seen,
        accuracy=round(100 * accuracy, 2),
    )


def measure(source, quick):
    dm = load(source, **recipe_arguments('quick', 'data'))
    for count in () if quick else (0, len(STEPS)):
        sample(dm, count, 0)  # 처음 부를 때의 준비를 재지 않는다.
    return [
        sample(dm, count, seed)
        for seed in range(1 if quick else 5)
        for count in range(len(NAMES))
    ]


def rows(samples):
    return [
        row(
            name,
            f'초당 {statistics.median(s["pictures"] / s["seconds"] for s in pick(samples, name=name)):,.0f}장, 평가 {spread([s["accuracy"] for s in pick(samples, name=name)])} %',
        )
        for name in NAMES
    ]


def draw(samples, ax):
    draw_bars(ax, samples, NAMES, lambda s: s['accuracy'], 'test accuracy, %')
