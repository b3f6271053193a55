"""원래 튜토리얼을 그대로 다시 한 것과 cifar_lit, 그리고 그 `quick` 조리법을 나란히 잰다.

    python bench/tutorial.py FOLDER [--seeds 0 1 2] [--json bench/tutorial.json]

FOLDER는 train/<클래스>/*, test/<클래스>/*가 든 사진 폴더이다. 앞의 둘은 배치 32로 두 에포크를 돈다. 씨앗마다 번갈아 새 프로세스에서 잰다.
잰 시간은 `trainer.fit`의 벽시계 시간(초), 정확도는 평가 사진에서 잰 것이다. 데이터를 메모리에 올리는 시간은 모두 뺀다.
`original_*`은 비교 대상이다. 흠까지 원래대로이므로 라이브러리 코드로 쓰지 않는다.
"""
import argparse, json, logging, os, platform, statistics, subprocess, sys, tempfile, time, warnings
from datetime import date
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
import torchmetrics
import wandb
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import transforms

from cifar_lit.callbacks import ImagePredictionLogger
from cifar_lit.data import CIFAR10DataModule
from cifar_lit.model import ConvNet, LitModel
from cifar_lit.speed import FastModel, recipe_arguments
from cifar_lit.train import SafeWandbLogger, best_precision, tune_cpu


class OriginalDataset(Dataset):
    "torchvision의 `CIFAR10`처럼 한 장씩 PIL로 바꿔 변환한다."
    def __init__(self, images, labels):
        self.images, self.labels = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((.5, .5, .5), (.5, .5, .5))])

    def __len__(self): return len(self.labels)
    def __getitem__(self, i): return self.transform(Image.fromarray(self.images[i])), self.labels[i]


class OriginalNet(ConvNet):
    "ReLU 다음에 풀링한다. 값은 같고 계산은 조금 더 많다."
    def features(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        return F.max_pool2d(F.relu(self.conv4(F.relu(self.conv3(x)))), 2).flatten(1)


class OriginalModel(pl.LightningModule):
    "지표 하나를 세 단계가 함께 쓰고, 로그 확률을 내놓는다."
    def __init__(self, num_classes):
        super().__init__()
        self.net, self.accuracy = OriginalNet((3, 32, 32), num_classes), torchmetrics.Accuracy('multiclass', num_classes=num_classes)

    def forward(self, x): return F.log_softmax(self.net(x), dim=1)

    def _loss(self, batch, stage, **how):
        x, y = batch
        output = self(x)
        loss = F.nll_loss(output, y)
        self.log(f'{stage}_loss', loss, **how)
        self.log(f'{stage}_acc', self.accuracy(output.argmax(1), y), **how)
        return loss

    def training_step(self, batch, i): return self._loss(batch, 'train', on_step=True, on_epoch=True)
    def validation_step(self, batch, i): self._loss(batch, 'val', prog_bar=True)
    def test_step(self, batch, i): self._loss(batch, 'test', prog_bar=True)
    def configure_optimizers(self): return torch.optim.Adam(self.parameters(), lr=2e-4)


class OriginalLogger(Callback):
    "검증 에포크마다 그림 32장을 W&B에 보낸다."
    def __init__(self, samples): self.images, self.labels = samples

    def on_validation_epoch_end(self, trainer, model):
        guesses = model(self.images).argmax(-1)
        trainer.logger.experiment.log({'examples': [wandb.Image(x, caption=f'Pred:{p}, Label:{y}') for x, p, y in zip(self.images, guesses, self.labels)]})


def original(dm, folder):
    train, test = (OriginalDataset(*part) for part in dm._pictures)
    train, val = random_split(train, [dm.sizes['train'], dm.sizes['val']])
    val = DataLoader(val, batch_size=32)
    logger = WandbLogger(project='wandb-lightning', job_type='train', save_dir=folder, offline=True)
    trainer = pl.Trainer(max_epochs=2, logger=logger, default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False, accelerator='cpu',
                         callbacks=[EarlyStopping(monitor='val_loss'), OriginalLogger(next(iter(val))), ModelCheckpoint()])
    model = OriginalModel(dm.num_classes)
    seconds = timed(lambda: trainer.fit(model, DataLoader(train, batch_size=32, shuffle=True), val))
    return seconds, trainer.test(model, DataLoader(test, batch_size=32), verbose=False)[0]['test_acc']


def ours(dm, folder):
    return fit(dm, folder, LitModel((3, 32, 32), dm.num_classes, channels_last=True, fused=True), max_epochs=2)


def quick(dm, folder):
    dm.batch_size = recipe_arguments('quick', 'data')['batch_size']
    return fit(dm, folder, FastModel((3, 32, 32), dm.num_classes, **recipe_arguments('quick', 'model')), **recipe_arguments('quick', 'trainer'))


def fit(dm, folder, model, **length):
    loggers = [CSVLogger(folder), SafeWandbLogger(save_dir=folder)]
    trainer = pl.Trainer(**length, logger=loggers, default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False, accelerator='cpu',
                         precision=best_precision(),
                         callbacks=[EarlyStopping(monitor='val_loss'), ImagePredictionLogger(), ModelCheckpoint(monitor='val_loss')])
    seconds = timed(lambda: trainer.fit(model, dm))
    return seconds, trainer.test(model, dm, ckpt_path='best', verbose=False)[0]['test_acc']


RUNS = {'tutorial': original, 'cifar_lit': ours, 'quick': quick}


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def load(folder):
    dm = CIFAR10DataModule(32, source=folder)
    dm.prepare_data(), dm.setup()
    return dm


def one(name, seed, folder):
    "새 프로세스 하나에서 한 번 돌리고 결과를 JSON으로 쓴다."
    os.environ['WANDB_SILENT'], os.environ['WANDB_MODE'] = 'true', 'offline'
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore')
    if name != 'tutorial': tune_cpu()
    dm = load(folder)
    pl.seed_everything(seed, verbose=False)
    with tempfile.TemporaryDirectory() as runs:
        seconds, accuracy = RUNS[name](dm, runs)
        wandb.finish()
    print(json.dumps(dict(seed=seed, name=name, fit_seconds=round(seconds, 2), test_accuracy=round(accuracy, 4))))


def measure(folder, seeds):
    for seed in seeds:
        for name in RUNS:
            done = subprocess.run([sys.executable, __file__, folder, '--one', name, '--seeds', str(seed)], stdout=subprocess.PIPE, text=True, check=True)
            sample = json.loads(done.stdout.splitlines()[-1])
            print(sample, flush=True)
            yield sample


def table(samples):
    rows = {name: [s for s in samples if s['name'] == name] for name in RUNS}
    for name, row in rows.items():
        seconds, accuracies = ([s[key] for s in row] for key in ('fit_seconds', 'test_accuracy'))
        print(f'{name:10} fit median {statistics.median(seconds):.1f} s, test {100 * statistics.mean(accuracies):.1f} % (lowest {100 * min(accuracies):.1f})')
    for name in list(RUNS)[1:]:
        ratios = [b['fit_seconds'] / a['fit_seconds'] for a, b in zip(rows['tutorial'], rows[name])]
        print(f'{name} / tutorial, time ratio per seed:', *(f'{ratio:.3f}' for ratio in ratios), f'median {statistics.median(ratios):.3f}')


def machine():
    return dict(processor=torch.cpu.get_capabilities().get('cpu_name', platform.processor()), capability=torch.backends.cpu.get_cpu_capability(),
                threads=torch.get_num_threads(), precision=best_precision(), python=platform.python_version(),
                versions={m.__name__: m.__version__ for m in (torch, pl, torchmetrics, wandb)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--json', default='bench/tutorial.json')
    parser.add_argument('--one', choices=list(RUNS), help='이 프로세스에서 하나만 잰다')
    args = parser.parse_args()
    if args.one: return one(args.one, args.seeds[0], args.folder)
    sizes = load(args.folder).sizes
    samples = list(measure(args.folder, args.seeds))
    table(samples)
    Path(args.json).write_text(json.dumps(dict(date=str(date.today()), machine=machine(), sizes=sizes, samples=samples), indent=1) + '\n')


if __name__ == '__main__': main()
