"""한 번 import해 두고 시험마다 갈라져(fork) 작은 학습을 하는 프로세스.

표준 입력의 한 줄이 시험 하나다(JSON). 자식은 파이썬의 보통 종료를 거치므로
`atexit`까지의 시간을 잰다. 표준 출력의 한 줄이 답이다.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import psutil
import requests
import torch
import wandb  # noqa: F401  갈라지기 전에 import해 둔다.

from cifar_lit.data import CIFAR10DataModule
from cifar_lit.model import LitModel
from cifar_lit.parts.cli import main
from cifar_lit.parts.loggers import SafeWandbLogger


def cores(process=None):
    "프로세스(지금 것)가 띄운 wandb-core"
    found = psutil.Process(process).children()
    return [child for child in found if 'wandb-core' in child.name()]


def fill(folder):
    "남은 자리를 마지막 바이트까지 채운다."
    with open(Path(folder, 'filler'), 'ab', buffering=0) as file:
        for size in (65536, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:  # 가득 찼다.
                pass


class Watch(pl.Callback):
    "학습이 시작된 때를 적고, 학습 중에 시킨 일을 한다."

    def __init__(self, case):
        self.case = case
        self.started = self.ended = None

    def on_train_start(self, trainer, pl_module):
        self.started = time.time()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 6:
            if self.case.get('kill'):
                [core] = cores()
                core.kill()
            if self.case.get('fill'):
                fill(self.case['fill'])
            if self.case.get('pause'):  # 죽을 때를 기다린다.
                time.sleep(self.case['pause'])

    def on_train_end(self, trainer, pl_module):
        self.ended = time.time()
        if self.case.get('end'):
            requests.post(self.case['end'], timeout=5)


def run(case):
    began = time.time()
    pl.seed_everything(0)
    model = LitModel((3, 32, 32), 10)
    watch = Watch(case)
    logger = SafeWandbLogger(**case.get('logger', {}))
    quiet = {'enable_progress_bar': False, 'enable_model_summary': False}
    trainer = pl.Trainer(
        max_steps=case.get('steps', 12),
        logger=logger,
        callbacks=[watch],
        accelerator='cpu',
        log_every_n_steps=1,
        limit_val_batches=2,
        enable_checkpointing=bool(case.get('checkpoint')),
        default_root_dir='.',
        **quiet,
    )
    trainer.fit(model, DATA)
    where = logger.finish()
    weights = torch.cat([weight.flatten() for weight in model.parameters()])
    answer = {
        'began': began,
        'started': watch.started,
        'ended': watch.ended,
        'finished': time.time(),
        'weights': weights.double().sum().item(),
        'where': where,
        'places': logger.places,
        'logged': trainer.global_step,
    }
    Path('answer.json').write_text(json.dumps(answer))


def write_rows(case):
    "0.05초마다 걸음 하나를 적는다. 죽거나, `last`까지 적으면 끝난다."
    first, last = case['rows']
    logger = SafeWandbLogger(**case['logger'])
    for step in range(first, last):
        logger.log_metrics({'loss': 1 / (step + 1), 'time': time.time()}, step)
        Path('written').touch()
        time.sleep(0.05)
        if step - first == case.get('kill_after'):
            [core] = cores()
            Path('killed').write_text(str(time.time()))
            core.kill()
            time.sleep(1)
            break
    Path('answer.json').write_text(
        json.dumps({'where': logger.finish(), 'places': logger.places})
    )


def serve():  # 자식이면 시킬 일. 부모는 입력이 끝나면 `None`
    for line in sys.stdin:
        case = json.loads(line)
        child = os.fork()
        if not child:
            os.chdir(case['folder'])
            for name, value in case['env'].items():
                os.environ[name] = value
            for number, name in ((1, 'stdout.txt'), (2, 'stderr.txt')):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT, 0o644), number)
            return case
        print(json.dumps({'pid': child}), flush=True)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps({'code': code, 'exited': time.time()}), flush=True)


if __name__ == '__main__':
    torch.set_num_threads(1)
    DATA = CIFAR10DataModule(32, source='toy')
    DATA.prepare_data()
    DATA.setup()
    gc.freeze()  # 자식이 끝날 때 물려받은 메모리를 훑지 않게 한다.
    print(json.dumps({'ready': True}), flush=True)
    if case := serve():
        if 'argv' in case:
            main(case['argv'])
        elif 'rows' in case:
            write_rows(case)
        else:
            run(case)
