"""`quick` 레시피에 이르기까지 한 가지씩 더하고, 남는 정확도를 시간으로 바꾸기.

배치 256으로 45스텝(`36 steps`부터는 36스텝)을 학습하고, 시드마다 모든 줄을 차례로 잰다.
잰 시간은 첫 스텝부터 마지막 스텝까지의 벽시계 시간(초)이고 데이터를 메모리에 올리는
시간은 빼며, 정확도는 테스트 사진에서 줄마다 시드마다 한 번 잰 것이다. `test_seconds`는
테스트에 걸린 시간이다.
학습률은 `grid`가 45스텝에서 검증 사진으로 고른 것(`CHOSEN`)이다.
`frozen bias`부터는 `flip at test`에서 하나씩 더 바꾼 것이고, `one view`가 `quick`이다.
'torch.optim.Muon'은 'flip at test'에서 옵티마이저만 PyTorch의 것으로 바꾼 것이다.
"""

import statistics

import lightning.pytorch as pl
import torch
from common import draw_bars, load, pick, reuse, row, seconds, spread, training_only
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from cifar_lit.model import LitModel
from cifar_lit.parts.recipes import read_recipe
from cifar_lit.parts.runs import Stopwatch
from cifar_lit.speed import FastModel, one_cycle

TITLE = '한 가지씩'
SHAPE = (3, 32, 32)
SEEDS = 5
STEPS = 45
QUICK = read_recipe('quick')
SMALL = ('16 px', 'whitening')
FULL = (*SMALL, 'Muon', 'one-cycle', 'label smoothing', 'flip at test')
TRICKS = {  # 줄마다 `FastNet`에 더한 것
    'FastNet': (),
    '16 px': SMALL[:1],
    'whitening': SMALL,
    'Adam + one-cycle': (*SMALL, 'one-cycle'),
    'Muon': (*SMALL, 'Muon'),
    'Muon + one-cycle': FULL[:4],
    'label smoothing': FULL[:5],
    'flip at test': FULL,
    'weight averaging': (*FULL, 'weight averaging'),
    'frozen bias': (*FULL, 'frozen bias'),
    '36 steps': (*FULL, 'frozen bias', '36 steps'),
    'one view': (*FULL[:-1], 'frozen bias', '36 steps'),
    'torch.optim.Muon': (*FULL, 'torch.optim.Muon'),
}
NAMES = ('ConvNet', 'ConvNet + one-cycle', *TRICKS)
CHOSEN = {  # `grid`가 고른 것
    'ConvNet': {'learning_rate': 2e-3},
    'ConvNet + one-cycle': {'learning_rate': 2e-3},
    'FastNet': {'learning_rate': 2e-3},
    '16 px': {'learning_rate': 5e-3},
    'whitening': {'learning_rate': 5e-3},
    'Adam + one-cycle': {'learning_rate': 1e-2},
    'Muon': {'learning_rate': 0.06, 'other_learning_rate': 0.005},
    'Muon + one-cycle': {
        'learning_rate': QUICK['model']['learning_rate'],
        'other_learning_rate': QUICK['model']['other_learning_rate'],
    },
    'torch.optim.Muon': {
        'learning_rate': 0.48,
        'other_learning_rate': 0.16,
        'weight_decay': 0.1,
    },
}


def with_schedule(model, optimizer, warmup):
    steps = model.trainer.estimated_stepping_batches
    schedule = one_cycle(optimizer, steps, warmup)
    return [optimizer], [{'scheduler': schedule, 'interval': 'step'}]


class Scheduled(LitModel):
    "one-cycle로 학습하는 `ConvNet`"

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return with_schedule(self, optimizer, QUICK['model']['warmup'])


class LibraryMuon(torch.optim.Optimizer):
    """커널에는 `torch.optim.Muon`, 나머지에는 `torch.optim.Adam`.

    `torch.optim.Muon`은 2차원만 받으므로 커널의 메모리를 행렬로 본 것을 건넨다.
    """

    def __init__(self, kernels, others, lr, momentum, other_lr, weight_decay):
        views = [nn.Parameter(as_matrix(kernel.detach())) for kernel in kernels]
        self.pairs = list(zip(kernels, views))
        self.muon = torch.optim.Muon(
            views, lr, weight_decay=weight_decay, momentum=momentum, ns_steps=3
        )
        self.adam = torch.optim.Adam(others, other_lr, betas=(0.9, 0.95))
        super().__init__([*views, *others], {})
        self.param_groups = [*self.muon.param_groups, *self.adam.param_groups]

    def step(self, closure=None):
        loss = None if closure is None else closure()
        for kernel, view in self.pairs:
            view.grad = as_matrix(kernel.grad)
            kernel.grad = None
        self.muon.step()
        self.adam.step()
        return loss


def as_matrix(kernel):
    "`channels_last`인 커널의 메모리를 그대로 `(출력, 높이 × 너비 × 입력)`으로 본다."
    return kernel.permute(0, 2, 3, 1).view(len(kernel), -1)


def settings_of(tricks, rates):
    "`tricks`까지 더했을 때 `FastModel`의 인자"
    settings = {**QUICK['model'], **rates}
    if '16 px' not in tricks:
        settings['size'] = 32
    settings['label_smoothing'] = 0.2 if 'label smoothing' in tricks else 0.0
    settings['views'] = 2 if 'flip at test' in tricks else 1
    settings['whitening_epochs'] = 0 if 'frozen bias' in tricks else None
    return settings


class Partial(FastModel):
    "`FastModel`에서 `tricks`에 없는 것을 뺀다."

    def __init__(self, tricks, weight_decay=0.0, **rates):
        super().__init__(SHAPE, 10, **settings_of(tricks, rates))
        self.tricks, self.weight_decay = tricks, weight_decay

    def on_fit_start(self):
        if 'whitening' in self.tricks:
            super().on_fit_start()
            return
        self.net.whiten.weight.requires_grad_(True)
        self.net.ready.fill_(True)

    def configure_optimizers(self):
        optimizer = self.make_optimizer()
        if 'one-cycle' in self.tricks:
            return with_schedule(self, optimizer, self.hparams.warmup)
        return optimizer

    def make_optimizer(self):
        h = self.hparams
        if 'Muon' not in self.tricks:
            learned = [weight for weight in self.parameters() if weight.requires_grad]
            return torch.optim.Adam(learned, h.learning_rate, fused=True)
        [optimizer], [made] = super().configure_optimizers()
        others, kernels = optimizer.param_groups
        if 'torch.optim.Muon' in self.tricks:
            rates = h.learning_rate, h.momentum, h.other_learning_rate
            given = kernels['params'], others['params'], *rates, self.weight_decay
            return LibraryMuon(*given)
        # `FastModel`이 만든 one-cycle은 학습률을 낮추어 놓으므로 되돌린다.
        kernels['lr'], others['lr'] = h.learning_rate, h.other_learning_rate
        for group in optimizer.param_groups:
            del group['initial_lr']
        return optimizer


def settings_for(name):
    "줄 `name`에서 쓰는 학습률"
    return CHOSEN.get(name, CHOSEN['Muon + one-cycle'])


def build(name, **settings):
    if name in TRICKS:
        return Partial(TRICKS[name], **settings)
    kind = LitModel if name == 'ConvNet' else Scheduled
    return kind(SHAPE, 10, **settings, channels_last=True, fused=True)


def fit(source, name, seed, **settings):
    "학습한 `Trainer`와 모델, 데이터, 시간"
    pl.seed_everything(seed, verbose=False)
    dm = reuse(source, **QUICK['data'])
    model, watch = build(name, **settings), Stopwatch()
    callbacks = [watch]
    if name == 'weight averaging':
        callbacks.append(EMAWeightAveraging(decay=0.8))
    length = QUICK['trainer']
    if '36 steps' not in TRICKS.get(name, ()):
        length = {**length, 'limit_train_batches': STEPS}
    trainer = training_only(**length, callbacks=callbacks, logger=False)
    trainer.fit(model, dm)
    return trainer, model, dm, watch


def sample(source, name, seed):
    trainer, model, dm, watch = fit(source, name, seed, **settings_for(name))
    results = []
    spent = seconds(lambda: results.extend(trainer.test(model, dm, verbose=False)))
    [result] = results
    return dict(
        name=name,
        repeat=seed,
        seconds=round(watch.time_elapsed('train'), 3),
        test_seconds=round(spent, 3),
        pictures=watch.seen,
        accuracy=round(100 * result['test_acc'], 2),
    )


def measure(source, quick):
    pictures = load(source).source
    if not quick:  # 처음 부를 때의 준비를 재지 않는다.
        sample(pictures, 'ConvNet', 0)
        sample(pictures, 'weight averaging', 0)
    return [
        sample(pictures, name, seed)
        for seed in range(1 if quick else SEEDS)
        for name in NAMES
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
