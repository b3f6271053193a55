"""GPU에서: 레시피 `record`를 Trainer로, 손으로 쓴 루프로, 그리고 airbench94_muon.

airbench의 규약대로 잰다. 백색화, 학습, 여섯 번 보는 평가의 시간을 더하고, 데이터를
올리는 것과 컴파일하는 것(버리는 첫 번), 에포크마다의 평가는 뺀다. 앞뒤에서 GPU가
끝나기를 기다린다. 손으로 쓴 루프는 신경망, 옵티마이저, 데이터를 Trainer와 함께 쓴다.
airbench94_muon은 잴 때 받고(AIRBENCH, `airbench.py`) 저장소에 두지 않는다. 우리는
검증에 2,000장을 떼어 에포크마다 48,000장을, airbench는 50,000장을 본다.

GPU가 없으면 아주 작은 신경망으로 CPU에서 한 번 돌아 보기만 한다. 그 시간은 GPU에 대해
아무것도 말하지 않는다.
"""

import sys
import tempfile
import time
from contextlib import chdir

import torch
from airbench import ready, save_pictures
from common import draw_bars, faster_row, load, pick, quiet_trainer, row, spread
from lightning.pytorch.callbacks import Callback

from cifar_lit.parts.nets import FastNet
from cifar_lit.parts.pictures import normalize
from cifar_lit.parts.recipes import read_recipe
from cifar_lit.parts.record import RecordModel
from cifar_lit.speed import first_pictures

TITLE = 'GPU의 기록'
TRAINER, LOOP, THEIRS = 'Trainer', 'loop', 'airbench94_muon'
NAMES = (TRAINER, LOOP, THEIRS)
REPEATS = 25
RESUMES = True  # 이미 잰 것은 다시 재지 않는다
SMALL = {'widths': (8, 16), 'size': 16, 'weight_decay': 0.0004}


def now():
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(Callback):
    "백색화부터 학습이 끝날 때까지, 그리고 평가"

    spent = 0.0

    def on_fit_start(self, trainer, pl_module):
        self.start = now()

    def on_train_end(self, trainer, pl_module):
        self.spent += now() - self.start

    def on_test_start(self, trainer, pl_module):
        self.start = now()

    def on_test_end(self, trainer, pl_module):
        self.spent += now() - self.start


class Runs:
    "모델 하나를 되풀이해 처음부터 학습한다. 컴파일한 것을 다시 쓴다."

    def __init__(self, source, small):
        self.recipe = read_recipe('record')
        data = {**self.recipe['data']}
        if small:
            data['batch_size'] = 200
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.dm = load(source, **data)
        self.epochs = 1 if small else self.recipe['trainer']['max_epochs']
        self.limit = 10 if small else None
        self.model = RecordModel((3, 32, 32), 10, **(SMALL if small else {}))

    def start(self, seed):
        "새로 만든 가중치와 데이터의 시드"
        torch.manual_seed(seed)
        net = FastNet(**self.model.net.arguments)
        self.model.net.load_state_dict(net.state_dict())
        self.dm.loading['seed'] = self.dm.augment.seed = seed

    def trainer(self, seed):
        self.start(seed)
        clock = Clock()
        trainer = quiet_trainer(
            accelerator=self.device if self.device == 'cpu' else 'gpu',
            devices=1,
            precision=self.recipe['trainer']['precision'],
            benchmark=True,
            max_epochs=self.epochs,
            limit_train_batches=self.limit,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            logger=False,
            callbacks=[clock],
        )
        trainer.fit(self.model, self.dm)
        [result] = trainer.test(self.model, self.dm, verbose=False)
        return clock.spent, result['test_acc']

    def train(self, loader):
        model = self.model
        batches = min(self.limit or len(loader), len(loader))
        optimizer, schedule = model.optimizer_for(batches * self.epochs, self.epochs)
        for epoch in range(self.epochs):
            learns = epoch < model.hparams.whitening_epochs
            model.net.whiten.bias.requires_grad_(learns)
            for _, (x, y) in zip(range(batches), loader):
                loss, _ = model.step_fn(x, y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()

    def loop(self, seed):
        self.start(seed)
        model = self.model.to(self.device)
        train, test = self.dm.train_dataloader(), self.dm.test_dataloader()
        start = now()
        images = normalize(first_pictures(self.dm, 2000)).to(self.device)
        model.net.init_whitening(images)
        model.cast_and_compile()
        model.net.train()
        self.train(train)
        model.net.eval()
        hits = total = 0
        with torch.no_grad():
            for x, y in test:
                hits += (model(x).argmax(1) == y).sum()
                total += len(y)
        return now() - start, hits.item() / total


def sample(name, seed, seconds, accuracy, **told):
    return dict(
        name=name,
        repeat=seed,
        seconds=round(seconds, 4),
        accuracy=round(100 * accuracy, 2),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
        **told,
    )


def run_theirs(train):
    def run(seed):
        result = train(seed)
        return result['seconds'], result['accuracy'] / 100

    return run


def measure(source, quick, done, save):
    on_gpu = torch.cuda.is_available()
    kept = [sample for sample in done if not sample['small']]
    if kept and not on_gpu:
        return kept  # GPU에서 잰 것을 지키고 다시 재지 않는다.
    sys.argv[0] = __file__  # airbench의 스크립트가 자기 소스를 읽는다.
    small = quick or not on_gpu
    ours, samples = Runs(source, small), kept
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        save_pictures(ours.dm, folder, 2000 if small else None)
        runs = {TRAINER: ours.trainer, LOOP: ours.loop}
        if on_gpu:
            runs[THEIRS] = run_theirs(ready(THEIRS))
            for run in runs.values():  # 컴파일하고 몸을 푼다.
                run(0)
        for seed in range(1 if small else REPEATS):
            for name, run in runs.items():
                if not pick(samples, name=name, repeat=seed):
                    samples.append(sample(name, seed, *run(seed), small=small))
                    save(samples)
    return samples


def rows(samples):
    made = []
    if samples[0]['small']:
        words = 'GPU 없이 작은 신경망으로 돌아 보기만 함'
        return [row(words, f'표본 {len(samples)}개', 'GPU에서 25번씩', False)]
    for name in NAMES:
        found = pick(samples, name=name)
        seconds = spread([s['seconds'] for s in found])
        accuracy = spread([s['accuracy'] for s in found])
        made.append(row(name, f'{seconds}초, 테스트 {accuracy} %'))
    made.append(faster_row(samples, TRAINER, LOOP, 0.952))
    made.append(faster_row(samples, TRAINER, THEIRS, 0.952))
    return made


def draw(samples, ax):
    names = [name for name in NAMES if pick(samples, name=name)]
    label = 'seconds, tiny net on a CPU' if samples[0]['small'] else 'seconds'
    draw_bars(ax, samples, names, lambda s: s['seconds'], label)
