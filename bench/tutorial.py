"""(다)(라) 원래 튜토리얼을 그대로 다시 한 것과 cifar_lit, 그리고 그 `quick` 레시피.

에포크의 시간과, 같은 정확도까지의 시간을 잰다.

앞의 둘은 배치 32로 두 에포크를 돈다. 시드마다 번갈아 새 프로세스에서 잰다. 데이터를
메모리에 올리는 시간은 모두 뺀다.
2.5배에 못 미치는 까닭: 2026년 11월 23일 2코어에서 cifar_lit의 한 스텝(배치 32)은
10.6 ms이고, 8.8 ms가 신경망(bf16, channels_last)과 Adam의 계산, 0.05 ms가 데이터,
0.9 ms가 Trainer, 0.5 ms가 지표와 로그였다. 계산만으로 이미 튜토리얼의 한 스텝(23 ms)의
0.38배이다.
`original*`과 `Original*`은 비교 대상이다. 흠까지 원래대로이므로 라이브러리 코드로 쓰지
않는다.
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
    quiet_trainer,
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
from cifar_lit.model import LitModel
from cifar_lit.parts.hardware import best_precision
from cifar_lit.parts.loggers import SafeWandbLogger
from cifar_lit.parts.nets import ConvNet
from cifar_lit.speed import FastModel, recipe_arguments

TITLE = '튜토리얼과 나란히'
SHAPE = (3, 32, 32)
HALF = (0.5, 0.5, 0.5)


class OriginalDataset(Dataset):
    "torchvision의 `CIFAR10`처럼 한 장씩 PIL로 바꿔 변환한다."

    def __init__(self, images, labels):
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = labels.tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(HALF, HALF)]
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


class OriginalModel(pl.LightningModule):
    "지표 하나를 세 단계가 함께 쓰고, 로그 확률을 내놓는다."

    def __init__(self, num_classes):
        super().__init__()
        self.net = ConvNet(SHAPE, num_classes)
        self.accuracy = torchmetrics.Accuracy('multiclass', num_classes=num_classes)

    def forward(self, x):
        return F.log_softmax(self.net(x), dim=1)

    def _loss(self, batch, stage, **options):
        x, y = batch
        output = self(x)
        loss = F.nll_loss(output, y)
        self.log(f'{stage}_loss', loss, **options)
        self.log(f'{stage}_acc', self.accuracy(output.argmax(1), y), **options)
        return loss

    def training_step(self, batch, batch_idx):
        return self._loss(batch, 'train', on_step=True, on_epoch=True)

    def validation_step(self, batch, batch_idx):
        self._loss(batch, 'val', prog_bar=True)

    def test_step(self, batch, batch_idx):
        self._loss(batch, 'test', prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=2e-4)


class OriginalLogger(Callback):
    "검증 에포크마다 그림 32장을 W&B에 보낸다."

    def __init__(self, samples):
        self.images, self.labels = samples

    def on_validation_epoch_end(self, trainer, pl_module):
        guesses = pl_module(self.images).argmax(-1)
        pictures = [
            wandb.Image(image, caption=f'Pred:{guess}, Label:{label}')
            for image, guess, label in zip(self.images, guesses, self.labels)
        ]
        trainer.logger.experiment.log({'examples': pictures})


def shorten(limit):
    return {f'limit_{stage}_batches': limit for stage in ('train', 'val', 'test')}


def original_loaders(dm):
    "튜토리얼의 학습, 검증, 테스트 `DataLoader`"
    whole, held = dm.cifar_train.dataset, dm.cifar_test
    dataset = OriginalDataset(whole.images, whole.labels)
    train, val = random_split(dataset, [dm.sizes['train'], dm.sizes['val']])
    test = OriginalDataset(held.images, held.labels)
    return (
        DataLoader(train, batch_size=32, shuffle=True),
        DataLoader(val, batch_size=32),
        DataLoader(test, batch_size=32),
    )


def original(dm, folder, limit):
    train, val, test = original_loaders(dm)
    callbacks = [
        EarlyStopping(monitor='val_loss'),
        OriginalLogger(next(iter(val))),
        ModelCheckpoint(),
    ]
    logger = WandbLogger(
        project='wandb-lightning', job_type='train', save_dir=folder, offline=True
    )
    trainer = quiet_trainer(
        max_epochs=2,
        **shorten(limit),
        logger=logger,
        default_root_dir=folder,
        callbacks=callbacks,
    )
    model = OriginalModel(dm.num_classes)
    spent = seconds(lambda: trainer.fit(model, train, val))
    [result] = trainer.test(model, test, verbose=False)
    return spent, result['test_acc']


def ours(dm, folder, limit):
    model = LitModel(SHAPE, dm.num_classes, channels_last=True, fused=True)
    return fit(dm, folder, model, max_epochs=2, **shorten(limit))


def quick(dm, folder, limit):
    model = FastModel(SHAPE, dm.num_classes, **recipe_arguments('quick', 'model'))
    return fit(dm, folder, model, **recipe_arguments('quick', 'trainer'))


def fit(dm, folder, model, **length):
    callbacks = [
        EarlyStopping(monitor='val_loss'),
        ImagePredictionLogger(),
        ModelCheckpoint(monitor='val_loss'),
    ]
    trainer = quiet_trainer(
        **length,
        logger=[CSVLogger(folder), SafeWandbLogger(save_dir=folder)],
        default_root_dir=folder,
        precision=best_precision(),
        callbacks=callbacks,
    )
    spent = seconds(lambda: trainer.fit(model, dm))
    [result] = trainer.test(model, dm, ckpt_path='best', verbose=False)
    return spent, result['test_acc']


RUNS = {'tutorial': original, 'cifar_lit': ours, 'quick': quick}


def one(name, seed, source, limit):
    "한 번 돌린 결과. 새 프로세스에서 부른다."
    os.environ.update(WANDB_SILENT='true', WANDB_MODE='offline')
    prepare()
    settings = recipe_arguments('quick', 'data') if name == 'quick' else {}
    pl.seed_everything(seed, verbose=False)
    dm = load(source, **settings)
    pl.seed_everything(seed, verbose=False)  # 읽는 동안 쓴 난수를 되돌린다.
    with tempfile.TemporaryDirectory() as folder:
        spent, accuracy = RUNS[name](dm, folder, limit)
        wandb.finish()
    return dict(
        name=name,
        repeat=seed,
        seconds=round(spent, 3),
        accuracy=round(100 * accuracy, 2),
    )


def measure(source, quick):
    limit = 0.02 if quick else 1.0
    return [
        in_new_process('tutorial.py', name, seed, source, limit)
        for seed in range(1 if quick else 5)
        for name in RUNS
    ]


def accuracies(samples, name):
    return [sample['accuracy'] for sample in pick(samples, name=name)]


def difference_row(samples, name):
    "정확도가 튜토리얼보다 얼마나 높은가"
    mine = statistics.mean(accuracies(samples, name))
    theirs = statistics.mean(accuracies(samples, 'tutorial'))
    what, value = f'{name} - tutorial, 정확도', f'{mine - theirs:+.1f} %p'
    return row(what, value, '0 %p 이상', mine >= theirs)


def rows(samples):
    made = []
    for name in RUNS:
        spent = middle(pick(samples, name=name))
        accuracy = spread(accuracies(samples, name))
        made.append(row(name, f'fit {spent:.1f}초, 테스트 {accuracy} %'))
    for name, target, words in (
        ('cifar_lit', 2.5, '두 에포크'),
        ('quick', 10, '튜토리얼의 정확도까지'),
    ):
        label = f'{name} / tutorial, {words}'
        made.append(faster_row(samples, name, 'tutorial', target, label=label))
        made.append(difference_row(samples, name))
    return made


def draw(samples, ax):
    for name in RUNS:
        spent = [sample['seconds'] for sample in pick(samples, name=name)]
        ax.plot(spent, accuracies(samples, name), 'o', label=name, alpha=0.7)
    ax.set(xlabel='fit, seconds', ylabel='test accuracy, %', xlim=(0, None))
    ax.legend(frameon=False)


if __name__ == '__main__':
    name, seed, source, limit = sys.argv[1:]
    print(json.dumps(one(name, int(seed), source, float(limit))))
