"""(다)(라) 원래 튜토리얼을 그대로 다시 한 것과 cifar_lit, 그리고 그 `quick` 조리법: 에포크의 시간, 같은 정확도까지의 시간.

앞의 둘은 배치 32로 두 에포크를 돈다. 씨앗마다 번갈아 새 프로세스에서 잰다. 데이터를 메모리에 올리는 시간은 모두 뺀다.
2.5배에 못 미치는 까닭: 2026년 11월 23일 2코어에서 cifar_lit의 한 스텝(배치 32)은 10.6 ms이고, 8.8 ms가 신경망(bf16, channels_last)과 Adam의 계산, 0.05 ms가 데이터,
0.9 ms가 Trainer, 0.5 ms가 지표와 로그였다. 계산만으로 이미 튜토리얼의 한 스텝(23 ms)의 0.38배이다.
`original_*`과 `Original*`은 비교 대상이다. 흠까지 원래대로이므로 라이브러리 코드로 쓰지 않는다.
"""

import json
import os
import statistics
import sys
import tempfile

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
import torchmetrics
import wandb
from common import (
    faster_row,
    in_new_process,
    load,
    middle,
    pick,
    prepare,
    row,
    seconds,
    spread,
)
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import transforms

from cifar_lit.callbacks import ImagePredictionLogger
from cifar_lit.model import ConvNet, LitModel
from cifar_lit.speed import FastModel, recipe_arguments
from cifar_lit.train import SafeWandbLogger, best_precision


class OriginalDataset(Dataset):
    "torchvision의 `CIFAR10`처럼 한 장씩 PIL로 바꿔 변환한다."

    def __init__(self, images, labels):
        self.images, self.labels = (
            images.permute(0, 2, 3, 1).contiguous().numpy(),
            labels.tolist(),
        )
        self.transform = transforms.Compose(
            [
                transforms.ToTensor(),
                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


class OriginalNet(ConvNet):
    "ReLU 다음에 풀링한다. 값은 같고 계산은 조금 더 많다."

    def features(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        return F.max_pool2d(F.relu(self.conv4(F.relu(self.conv3(x)))), 2).flatten(1)


class OriginalModel(pl.LightningModule):
    "지표 하나를 세 단계가 함께 쓰고, 로그 확률을 내놓는다."

    def __init__(self, num_classes):
        super().__init__()
        self.net, self.accuracy = (
            OriginalNet((3, 32, 32), num_classes),
            torchmetrics.Accuracy('multiclass', num_classes=num_classes),
        )

    def forward(self, x):
        return F.log_softmax(self.net(x), dim=1)

    def _loss(self, batch, stage, **how):
        x, y = batch
        output = self(x)
        loss = F.nll_loss(output, y)
        self.log(f'{stage}_loss', loss, **how)
        self.log(f'{stage}_acc', self.accuracy(output.argmax(1), y), **how)
        return loss

    def training_step(self, batch, i):
        return self._loss(batch, 'train', on_step=True, on_epoch=True)

    def validation_step(self, batch, i):
        self._loss(batch, 'val', prog_bar=True)

    def test_step(self, batch, i):
        self._loss(batch, 'test', prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=2e-4)


class OriginalLogger(Callback):
    "검증 에포크마다 그림 32장을 W&B에 보낸다."

    def __init__(self, samples):
        self.images, self.labels = samples

    def on_validation_epoch_end(self, trainer, model):
        guesses = model(self.images).argmax(-1)
        trainer.logger.experiment.log(
            {
                'examples': [
                    wandb.Image(x, caption=f'Pred:{p}, Label:{y}')
                    for x, p, y in zip(self.images, guesses, self.labels)
                ]
            }
        )


def shorten(limit):
    return {f'limit_{part}_batches': limit for part in ('train', 'val', 'test')}


def original(dm, folder, limit):
    train, test = (OriginalDataset(*part) for part in dm._pictures)
    train, val = random_split(train, [dm.sizes['train'], dm.sizes['val']])
    val = DataLoader(val, batch_size=32)
    logger = WandbLogger(
        project='wandb-lightning', job_type='train', save_dir=folder, offline=True
    )
    trainer = pl.Trainer(
        max_epochs=2,
        **shorten(limit),
        logger=logger,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator='cpu',
        callbacks=[
            EarlyStopping(monitor='val_loss'),
            OriginalLogger(next(iter(val))),
            ModelCheckpoint(),
        ],
    )
    model = OriginalModel(dm.num_classes)
    spent = seconds(
        lambda: trainer.fit(model, DataLoader(train, batch_size=32, shuffle=True), val)
    )
    return spent, trainer.test(model, DataLoader(test, batch_size=32), verbose=False)[
        0
    ]['test_acc']


def ours(dm, folder, limit):
    return fit(
        dm,
        folder,
        LitModel((3, 32, 32), dm.num_classes, channels_last=True, fused=True),
        max_epochs=2,
        **shorten(limit),
    )


def quick(dm, folder, limit):
    dm.batch_size = recipe_arguments('quick', 'data')['batch_size']
    return fit(
        dm,
        folder,
        FastModel((3, 32, 32), dm.num_classes, **recipe_arguments('quick', 'model')),
        **recipe_arguments('quick', 'trainer'),
    )


def fit(dm, folder, model, **length):
    loggers = [CSVLogger(folder), SafeWandbLogger(save_dir=folder)]
    trainer = pl.Trainer(
        **length,
        logger=loggers,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator='cpu',
        precision=best_precision(),
        callbacks=[
            EarlyStopping(monitor='val_loss'),
            ImagePredictionLogger(),
            ModelCheckpoint(monitor='val_loss'),
        ],
    )
    spent = seconds(lambda: trainer.fit(model, dm))
    return spent, trainer.test(model, dm, ckpt_path='best', verbose=False)[0][
        'test_acc'
    ]


RUNS = {'tutorial': original, 'cifar_lit': ours, 'quick': quick}
TITLE = '튜토리얼과 나란히'


def one(name, seed, source, limit):
    "한 번 돌린 결과. 새 프로세스에서 부른다."
    os.environ['WANDB_SILENT'], os.environ['WANDB_MODE'] = 'true', 'offline'
    prepare()
    dm = load(source)
    pl.seed_everything(seed, verbose=False)
    with tempfile.TemporaryDirectory() as runs:
        fit_seconds, accuracy = RUNS[name](dm, runs, limit)
        wandb.finish()
    return dict(
        name=name,
        repeat=seed,
        seconds=round(fit_seconds, 3),
        accuracy=round(100 * accuracy, 2),
    )


def measure(source, quick):
    limit = 0.02 if quick else 1.0
    return [
        in_new_process('tutorial.py', name, seed, source, limit)
        for seed in range(1 if quick else 5)
        for name in RUNS
    ]


def rows(samples):
    made = [
        row(
            name,
            f'fit {middle(pick(samples, name=name)):.1f}초, 평가 {spread([s["accuracy"] for s in pick(samples, name=name)])} %',
        )
        for name in RUNS
    ]
    made.append(
        faster_row(
            samples,
            'cifar_lit',
            'tutorial',
            2.5,
            label='cifar_lit / tutorial, 두 에포크',
        )
    )
    mean = {
        name: statistics.mean(s['accuracy'] for s in pick(samples, name=name))
        for name in RUNS
    }
    made.append(
        row(
            'cifar_lit - tutorial, 정확도',
            f'{mean["cifar_lit"] - mean["tutorial"]:+.1f} %p',
            '0 %p 이상',
            mean['cifar_lit'] >= mean['tutorial'],
        )
    )
    return made + [
        faster_row(
            samples,
            'quick',
            'tutorial',
            10,
            label='quick / tutorial, 튜토리얼의 정확도까지',
        ),
        row(
            'quick - tutorial, 정확도',
            f'{mean["quick"] - mean["tutorial"]:+.1f} %p',
            '0 %p 이상',
            mean['quick'] >= mean['tutorial'],
        ),
    ]


def draw(samples, ax):
    for name in RUNS:
        ax.plot(
            [s['seconds'] for s in pick(samples, name=name)],
            [s['accuracy'] for s in pick(samples, name=name)],
            'o',
            label=name,
            alpha=0.7,
        )
    ax.set(xlabel='fit, seconds', ylabel='test accuracy, %', xlim=(0, None))
    ax.legend(frameon=False)


if __name__ == '__main__':
    print(
        json.dumps(one(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])))
    )
