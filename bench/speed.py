"""`quick` 조리법에 이르기까지 한 가지씩 더하며 잰다.

    python bench/speed.py FOLDER [--seeds 0 1 2 3 4] [--json bench/speed.json]

FOLDER는 train/<클래스>/*, test/<클래스>/*가 든 사진 폴더이다. 모두 배치 256으로 45스텝을 학습하고, 씨앗마다 모든 줄을 차례로 잰다.
잰 시간은 첫 스텝부터 마지막 스텝까지의 벽시계 시간(초)이고 데이터를 메모리에 올리는 시간은 빼며, 정확도는 평가 사진에서 잰 것이다.
"""
import argparse, json, logging, statistics, warnings
from datetime import date
from pathlib import Path

import lightning.pytorch as pl
import torch

from cifar_lit.data import CIFAR10DataModule
from cifar_lit.model import LitModel
from cifar_lit.speed import FastModel, recipe_arguments, shrink
from cifar_lit.train import _Stopwatch, best_precision, tune_cpu
from tutorial import machine

STEPS = ('FastNet', '16 px', 'whitening', 'Muon', 'one-cycle', 'label smoothing', 'flip at test')
SHAPE = (3, 32, 32)


class Partial(FastModel):
    "`FastModel`에서 아직 더하지 않은 것(`STEPS`의 `on` 뒤)을 뺀다."
    def __init__(self, on):
        settings = recipe_arguments('quick', 'model')
        super().__init__(SHAPE, 10, **{**settings, 'size': settings['size'] if '16 px' in on else 32, 'label_smoothing': .2 if 'label smoothing' in on else 0.})
        self.on = on
        if 'flip at test' not in on: self.net.forward = lambda x: self.net.logits(shrink(x, self.net.size))

    def on_fit_start(self):
        if 'whitening' in self.on: return super().on_fit_start()
        self.net.whiten.weight.requires_grad_(True), self.net.ready.fill_(True)

    def configure_optimizers(self):
        if 'Muon' not in self.on: return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=1e-3, fused=True)
        made = super().configure_optimizers()
        if 'one-cycle' in self.on: return made
        for group, lr in zip(made['optimizer'].param_groups, (self.hparams.learning_rate, self.hparams.other_learning_rate)): group['lr'] = lr
        return made['optimizer']


def build(count):
    return Partial(STEPS[:count]) if count else LitModel(SHAPE, 10, learning_rate=1e-3, channels_last=True, fused=True)


def sample(dm, count, seed):
    pl.seed_everything(seed, verbose=False)
    model, watch = build(count), _Stopwatch()
    trainer = pl.Trainer(**recipe_arguments('quick', 'trainer'), precision=best_precision(), callbacks=[watch], limit_val_batches=0, num_sanity_val_steps=0,
                         logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, accelerator='cpu')
    trainer.fit(model, dm)
    accuracy = trainer.test(model, dm, verbose=False)[0]['test_acc']
    return dict(step=STEPS[count - 1] if count else 'ConvNet', seed=seed, seconds=round(watch.time_elapsed('train'), 3), pictures=watch.seen, accuracy=round(accuracy, 4))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    parser.add_argument('--json', default='bench/speed.json')
    args = parser.parse_args()
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore')
    tune_cpu()
    dm = CIFAR10DataModule(source=args.folder, **recipe_arguments('quick', 'data'))
    dm.prepare_data(), dm.setup()
    for count in (0, len(STEPS)): sample(dm, count, 0) # 처음 부를 때의 준비를 재지 않는다.
    samples = [sample(dm, count, seed) for seed in args.seeds for count in range(len(STEPS) + 1)]
    for name in ('ConvNet', *STEPS):
        rows = [s for s in samples if s['step'] == name]
        speed, accuracy = [s['pictures'] / s['seconds'] for s in rows], [100 * s['accuracy'] for s in rows]
        print(f'{name:16} {statistics.median(speed):8,.0f} img/s  {statistics.mean(accuracy):5.1f} ± {statistics.stdev(accuracy):.1f} %')
    Path(args.json).write_text(json.dumps(dict(date=str(date.today()), machine=machine(), samples=samples), indent=1) + '\n')


if __name__ == '__main__': main()
