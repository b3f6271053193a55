"""`quick` 레시피에 이르기까지 한 가지씩 더하기.

모두 배치 256으로 45스텝을 학습하고, 시드마다 모든 줄을 차례로 잰다.
잰 시간은 첫 스텝부터 마지막 스텝까지의 벽시계 시간(초)이고 데이터를 메모리에 올리는
시간은 빼며, 정확도는 테스트 사진에서 잰 것이다.
"""

import statistics

import lightning.pytorch as pl
import torch
from common import draw_bars, load, pick, reuse, row, spread, training_only
from lightning.pytorch.callbacks import EMAWeightAveraging

from cifar_lit.model import LitModel
from cifar_lit.parts.nets import shrink
from cifar_lit.parts.runs import Stopwatch
from cifar_lit.speed import FastModel, recipe_arguments

TITLE = '한 가지씩'
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
SHAPE = (3, 32, 32)


def settings_of(steps):
    "`steps`까지 더했을 때 `FastModel`의 인자"
    settings = dict(recipe_arguments('quick', 'model'))
    if '16 px' not in steps:
        settings['size'] = 32
    settings['label_smoothing'] = 0.2 if 'label smoothing' in steps else 0.0
    return settings


class Partial(FastModel):
    "`FastModel`에서 아직 더하지 않은 것(`STEPS` 가운데 `steps`에 없는 것)을 뺀다."

    def __init__(self, steps):
        super().__init__(SHAPE, 10, **settings_of(steps))
        self.steps = steps
        if 'flip at test' not in steps:
            self.net.forward = self.forward_once

    def forward_once(self, x):
        return self.net.logits(shrink(x, self.net.size))

    def on_fit_start(self):
        if 'whitening' in self.steps:
            super().on_fit_start()
            return
        self.net.whiten.weight.requires_grad_(True)
        self.net.ready.fill_(True)

    def configure_optimizers(self):
        if 'Muon' not in self.steps:
            trained = [weight for weight in self.parameters() if weight.requires_grad]
            return torch.optim.Adam(trained, lr=1e-3, fused=True)
        made = super().configure_optimizers()
        if 'one-cycle' in self.steps:
            return made
        # one-cycle은 만들면서 학습률을 낮추므로 되돌린다.
        filters, others = made['optimizer'].param_groups
        filters['lr'] = self.hparams.learning_rate
        others['lr'] = self.hparams.other_learning_rate
        return made['optimizer']


def build(count):
    if count:
        return Partial(STEPS[:count])
    return LitModel(SHAPE, 10, learning_rate=1e-3, channels_last=True, fused=True)


def sample(source, count, seed):
    pl.seed_everything(seed, verbose=False)
    dm = reuse(source, **recipe_arguments('quick', 'data'))
    model, watch = build(count), Stopwatch()
    callbacks = [watch]
    if 'weight averaging' in STEPS[:count]:
        callbacks.append(EMAWeightAveraging(decay=0.8))
    trainer = training_only(
        **recipe_arguments('quick', 'trainer'), callbacks=callbacks, logger=False
    )
    trainer.fit(model, dm)
    [result] = trainer.test(model, dm, verbose=False)
    return dict(
        name=NAMES[count],
        repeat=seed,
        seconds=round(watch.time_elapsed('train'), 3),
        pictures=watch.seen,
        accuracy=round(100 * result['test_acc'], 2),
    )


def measure(source, quick):
    pictures = load(source).source
    if not quick:  # 처음 부를 때의 준비를 재지 않는다.
        sample(pictures, 0, 0)
        sample(pictures, len(STEPS), 0)
    return [
        sample(pictures, count, seed)
        for seed in range(1 if quick else 5)
        for count in range(len(NAMES))
    ]


def rows(samples):
    made = []
    for name in NAMES:
        found = pick(samples, name=name)
        speed = statistics.median(s['pictures'] / s['seconds'] for s in found)
        accuracy = spread([s['accuracy'] for s in found])
        made.append(row(name, f'초당 {speed:,.0f}장, 테스트 {accuracy} %'))
    return made


def draw(samples, ax):
    draw_bars(ax, samples, NAMES, lambda s: s['accuracy'], 'test accuracy, %')
