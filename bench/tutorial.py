"""(다)(라) 원래 튜토리얼을 그대로 다시 한 것과 cifar_lit, 그리고 그 `quick` 레시피.

에포크의 시간과, 같은 정확도까지의 시간을 잰다.

앞의 둘은 배치 32로 두 에포크를 돈다. 시드마다 번갈아 새 프로세스에서 잰다. cifar_lit과
quick은 `cifar-lit tutorial`, `cifar-lit tutorial --recipe quick`이라는 명령 그대로이다.
'Trainer'는 학습이 시작되어 끝날 때까지(검증과 체크포인트를 더하고 데이터를 메모리에
올리는 시간은 뺀다), '명령'은 프로세스가 시작되어 끝날 때까지(라이브러리를 부르고,
사진 폴더의 캐시를 읽고, 테스트하는 것까지)의 시간이다. 폴더의 사진을 처음 풀어 캐시를
만드는 시간은 미리 한 번 읽어 뺀다.
2.5배에 못 미치는 까닭: 2026년 11월 29일 AMD EPYC(AVX512_BF16) 2코어에서 학습 시간을
2,814스텝으로 나누면(검증도 들어 있다) 튜토리얼이 37 ms, cifar_lit이 19 ms이다. 따로
손으로 잰(표본은 없다) 신경망과 Adam의 계산이 13~16 ms라, 나머지가 하나도 없어야
2.5배(15 ms)이다.
`original*`과 `Original*`은 비교 대상이다. 흠까지 원래대로이므로 라이브러리 코드로 쓰지
않는다.
"""

import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

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
from lightning.pytorch.loggers import WandbLogger
from PIL import Image
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import transforms

from cifar_lit.parts.nets import ConvNet
from cifar_lit.parts.runs import Stopwatch

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


def original(seed, source, limit, folder):
    "튜토리얼의 (학습 시간, 테스트 정확도). 새 프로세스에서 부른다."
    pl.seed_everything(seed, verbose=False)
    train, val, test = original_loaders(load(source))
    pl.seed_everything(seed, verbose=False)  # 읽는 동안 쓴 난수를 되돌린다.
    watch = Stopwatch()
    callbacks = [
        EarlyStopping(monitor='val_loss'),
        OriginalLogger(next(iter(val))),
        ModelCheckpoint(),
        watch,
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
    model = OriginalModel(10)
    trainer.fit(model, train, val)
    [result] = trainer.test(model, test, verbose=False)
    wandb.finish()
    return watch.time_elapsed('train'), result['test_acc']


COMMANDS = {'cifar_lit': (), 'quick': ('--recipe', 'quick')}
NAMES = ('tutorial', *COMMANDS)


def command(name, seed, source, limit, folder):
    "`cifar-lit tutorial …`, 줄이지 않으면 README에 적힌 그대로"
    script = Path(sys.executable).with_name('cifar-lit')
    words = [script, 'tutorial', *COMMANDS[name], '--data.source', source]
    words += ['--seed_everything', seed, '--run_dir', folder]
    if limit < 1 and name == 'cifar_lit':  # quick은 이미 짧다.
        for option, value in shorten(limit).items():
            words += [f'--trainer.{option}', value]
    return list(map(str, words))


def read_result(printed, folder):
    "명령이 쓴 학습 시간(초)과 `metrics.csv`의 테스트 정확도"
    [spent] = re.findall(r'^학습 시간: ([\d.]+)초', printed, re.M)
    with open(Path(folder, 'metrics.csv'), encoding='utf-8') as file:
        [accuracy] = [
            row['test_acc'] for row in csv.DictReader(file) if row['test_acc']
        ]
    return float(spent), float(accuracy)


def run(name, seed, source, limit, folder):
    "명령 하나를 새 프로세스에서 돌린 (학습 시간, 정확도)"
    if name not in COMMANDS:
        return in_new_process('tutorial.py', seed, source, limit, folder)
    words = command(name, seed, source, limit, folder)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return read_result(done.stdout, folder)


def sample(name, seed, source, limit=1.0):
    os.environ.update(WANDB_SILENT='true', WANDB_MODE='offline')
    result = []
    with tempfile.TemporaryDirectory() as folder:
        whole = seconds(lambda: result.extend(run(name, seed, source, limit, folder)))
    spent, accuracy = result
    return dict(
        name=name,
        repeat=seed,
        seconds=round(spent, 1),
        command_seconds=round(whole, 1),
        accuracy=round(100 * accuracy, 2),
    )


def measure(source, quick):
    load(source)  # 폴더의 사진을 캐시에 둔다.
    return [
        sample(name, seed, source, 0.02 if quick else 1.0)
        for seed in range(1 if quick else 5)
        for name in NAMES
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
    for name in NAMES:
        found = pick(samples, name=name)
        spent, whole = middle(found), middle(found, 'command_seconds')
        times = f'Trainer {spent:.1f}초, 명령 {whole:.1f}초'
        accuracy = spread(accuracies(samples, name))
        made.append(row(name, f'{times}, 테스트 {accuracy} %'))
    for name, target, command_target, words in (
        ('cifar_lit', 2.5, None, '두 에포크'),
        ('quick', 10, 20, '튜토리얼의 정확도까지'),
    ):
        label = f'{name} / tutorial, {words}'
        made.append(faster_row(samples, name, 'tutorial', target, label=label))
        whole = {'key': 'command_seconds', 'label': f'{label}, 명령'}
        made.append(faster_row(samples, name, 'tutorial', command_target, **whole))
        made.append(difference_row(samples, name))
    return made


def draw(samples, ax):
    for k, name in enumerate(NAMES):
        found = pick(samples, name=name)
        for key, marker in (('seconds', 'o'), ('command_seconds', 'x')):
            spent = [sample[key] for sample in found]
            label = f'{name}, {"Trainer" if key == "seconds" else "command"}'
            style = {'color': f'C{k}', 'label': label, 'alpha': 0.7}
            ax.plot(spent, accuracies(samples, name), marker, **style)
    ax.set(xlabel='seconds', ylabel='test accuracy, %', xlim=(0, None))
    ax.legend(frameon=False, fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))


if __name__ == '__main__':
    seed, source, limit, folder = sys.argv[1:]
    prepare()
    print(json.dumps(original(int(seed), source, float(limit), folder)))
