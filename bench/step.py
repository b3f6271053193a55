"""(나) Trainer의 한 스텝: 손으로 쓴 루프와 나란히. 사이의 줄은 시간이 어디에 드는지 보여 준다."""

import tempfile

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from common import draw_bars, faster_row, interleave, load, middle, pick, row, seconds
from lightning.pytorch.loggers import CSVLogger

from cifar_lit.model import LitModel
from cifar_lit.train import _Stopwatch, best_precision

TITLE = 'Trainer의 한 스텝'
BATCH = 128
NAMES = ('loop', 'Trainer', 'Trainer + metrics', 'LitModel')
MEANING = {
    'loop': '손으로 쓴 루프',
    'Trainer': '손실만 돌려주는 LightningModule',
    'Trainer + metrics': '지표까지',
    'LitModel': '지표, 로그, CSVLogger',
}


class Bare(LitModel):
    "손실만 계산한다."

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def on_train_epoch_end(self):
        pass


class Counted(Bare):
    "지표는 세지만 기록하지 않는다."

    def training_step(self, batch, batch_idx):
        return self._step(batch, self.train_metrics)[0]


def model(kind):
    torch.manual_seed(0)
    return kind((3, 32, 32), 10, channels_last=True, fused=True)


def loop(dm, steps):
    net, mixed = model(LitModel), best_precision() == 'bf16-mixed'
    optimizer = net.configure_optimizers()

    def train():
        for _, (x, y) in zip(range(steps), dm.train_dataloader()):
            with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
                loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return seconds(train)


def fit(kind, dm, steps, **logging):
    watch = _Stopwatch()
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        precision=best_precision(),
        callbacks=[watch],
        accelerator='cpu',
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **logging,
    )
    trainer.fit(model(kind), dm)
    return watch.time_elapsed('train')


def logged(dm, steps):
    with tempfile.TemporaryDirectory() as folder:
        return fit(LitModel, dm, steps, logger=CSVLogger(folder))


def measure(source, quick):
    dm, steps = load(source, BATCH), 20 if quick else 200
    runs = dict(
        zip(
            NAMES,
            (
                lambda: loop(dm, steps),
                lambda: fit(Bare, dm, steps, logger=False),
                lambda: fit(Counted, dm, steps, logger=False),
                lambda: logged(dm, steps),
            ),
        )
    )
    return [
        {**s, 'seconds': s['seconds'] / steps}
        for s in interleave(runs, 3 if quick else 7)
    ]


def rows(samples):
    made = [
        row(
            f'{name}: {MEANING[name]}',
            f'{1000 * middle(pick(samples, name=name)):.2f} ms',
        )
        for name in NAMES
    ]
    return made + [faster_row(samples, 'LitModel', 'loop', 0.952)]


def draw(samples, ax):
    draw_bars(
        ax, samples, NAMES, lambda s: 1000 * s['seconds'], f'ms per step of {BATCH}'
    )
