"""(나) Trainer의 한 스텝: 손으로 쓴 루프와 나란히.

사이의 줄은 시간이 어디에 드는지 보여 준다. 목표는 손으로 쓴 루프의 1.03배 안, 곧
빠르기로 0.97배이다.
못 미친 까닭은 사이의 줄에 있다. 더 드는 시간은 Trainer, 지표, 로그에 나뉘어 든다.
표본 없이 손으로 재 보니 배치 2에서는 한 스텝에 2.1~2.7 ms(네 번)가 더 들었다. 그때
cProfile로 500스텝을 보면 `self.log` 두 번에 드는 시간의 4분의 3이, 기록할 때마다 앞의
기록을 같은 장치로 다시 옮기는 Lightning의 `_ResultMetric.to`이다. 줄이려면 기록을 덜
해야 한다.
"""

import tempfile

import torch
import torch.nn.functional as F
from common import (
    draw_bars,
    faster_row,
    interleave,
    load,
    middle,
    pick,
    row,
    seconds,
    training_only,
)
from lightning.pytorch.loggers import CSVLogger

from cifar_lit.model import LitModel
from cifar_lit.parts.hardware import best_precision
from cifar_lit.parts.runs import Stopwatch

TITLE = 'Trainer의 한 스텝'
BATCH = 128
MEANING = {
    'loop': '손으로 쓴 루프',
    'Trainer': '손실만 돌려주는 LightningModule',
    'Trainer + metrics': '지표까지',
    'LitModel': '지표, 로그, CSVLogger',
}
NAMES = tuple(MEANING)


class Bare(LitModel):
    "손실만 계산한다."

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)


class Counted(LitModel):
    "지표는 세지만 기록하지 않는다."

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.train_acc(logits, y)
        return F.cross_entropy(logits, y)


def model(kind):
    torch.manual_seed(0)
    return kind((3, 32, 32), 10, channels_last=True, fused=True)


def loop(dm, steps):
    net = model(LitModel)
    mixed = best_precision() == 'bf16-mixed'
    optimizer = net.configure_optimizers()

    def train():
        for _, (x, y) in zip(range(steps), dm.train_dataloader()):
            with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
                loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return seconds(train)


def fit(kind, dm, steps, logger=False):
    watch = Stopwatch()
    trainer = training_only(
        max_epochs=1, limit_train_batches=steps, callbacks=[watch], logger=logger
    )
    trainer.fit(model(kind), dm)
    return watch.time_elapsed('train')


def logged(dm, steps):
    with tempfile.TemporaryDirectory() as folder:
        return fit(LitModel, dm, steps, CSVLogger(folder))


def measure(source, quick):
    dm = load(source, BATCH)
    steps = 20 if quick else 200
    runs = {
        'loop': lambda: loop(dm, steps),
        'Trainer': lambda: fit(Bare, dm, steps),
        'Trainer + metrics': lambda: fit(Counted, dm, steps),
        'LitModel': lambda: logged(dm, steps),
    }
    samples = interleave(runs, 3 if quick else 7)
    return [{**sample, 'seconds': sample['seconds'] / steps} for sample in samples]


def milliseconds(sample):
    return 1000 * sample['seconds']


def rows(samples):
    made = []
    for name, meaning in MEANING.items():
        spent = 1000 * middle(pick(samples, name=name))
        made.append(row(f'{name}: {meaning}', f'{spent:.2f} ms'))
    return made + [faster_row(samples, 'LitModel', 'loop', 0.97)]


def draw(samples, ax):
    draw_bars(ax, samples, NAMES, milliseconds, f'ms per step of {BATCH}')
