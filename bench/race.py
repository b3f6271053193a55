"""끝까지 나란히: `fast` 레시피와 airbench94, airbench94_muon.

시드마다 번갈아, 저마다 새 프로세스에서 처음부터 끝까지 학습한다. 메모리 설정과 사진이
같고, 시간은 airbench의 규약대로 백색화, 학습, 마지막 평가이다. 에포크마다의 테스트
정확도는 그림을 그리려고 시계를 멈추고 한 번만 보고 잰다. `fast`는 그때 배우던 크기로
본다. airbench96은 한 번에 airbench94의 열 배가 넘는 계산(4.91과 0.36 PFLOP,
그 스크립트에 적힌 값)이라 돌리지 않는다.

한 번이 몇십 분이라 멈추었다 이어서 잴 수 있다. 표본은 잰 대로 `race.json`에 남고,
그 컴퓨터에서 이미 잰 것은 다시 재지 않는다. 비는 시드와 컴퓨터가 같은 것끼리 낸다.
bf16을 하드웨어로 계산하는 컴퓨터(AVX512, bf16-mixed)에서는 모두 bf16으로 학습하고,
`fast`도 Winograd를 쓰지 않는다.
'fast (11 ep)'은 앞선 설정이다: 20, 26, 32픽셀로 열한 에포크, GELU, Newton-Schulz
세 번, 이미지마다 여섯 번.
잰 차례: bf16에서는 `fast`와 airbench94_muon을 시드마다 번갈아 재었다. airbench94는 다른
때에, 'airbench94_muon (another day)'는 'fast (11 ep)'과 번갈아 잰 것이다.
AVX2에서는 airbench94_muon의 시드 0과 1을 'fast (11 ep)'보다 몇 시간 먼저, 시드
2를 이것의 시드 0과 1 사이에 재었다. 더 앞선 설정(열두 에포크)도 `tries.json`에 있다.
"""

import json
import statistics
import sys
import time
from datetime import date
from pathlib import Path

import lightning.pytorch as pl
import torch
from common import (
    faster,
    in_new_process,
    load,
    machine,
    pick,
    prepare,
    row,
    spread,
    training_only,
)
from lightning.pytorch.callbacks import Callback
from scipy.stats import ttest_ind

from cifar_lit.parts.recipes import read_recipe
from cifar_lit.speed import FastModel

TITLE = '끝까지 나란히'
OURS, EARLIER = 'fast', 'fast (11 ep)'
THEIRS = ('airbench94_muon', 'airbench94')
BESIDE = 'airbench94_muon (another day)'  # bf16에서 `EARLIER`와 번갈아 잰 것
NAMES = (OURS, EARLIER, *THEIRS, BESIDE)
SEEDS = 3
ORDER = [(name, seed) for seed in range(SEEDS) for name in (OURS, THEIRS[0])]
ORDER += [(THEIRS[1], seed) for seed in range(2)]  # 앞 세대는 둘만
RESUMES = True  # `measure`가 이미 잰 표본을 받는다


class Curve(Callback):
    "학습한 시간과, 에포크마다 시계를 멈추고 잰 테스트 정확도"

    def __init__(self):
        self.spent, self.points = 0.0, []

    def on_fit_start(self, trainer, pl_module):
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module):
        self.spent += time.perf_counter() - self.start
        net = pl_module.net
        recipe = net.size, net.views
        net.size, net.views = net.train_size, 1
        accuracy = evaluate(trainer)
        net.size, net.views = recipe
        self.points.append([round(self.spent, 2), accuracy])
        self.start = time.perf_counter()


@torch.no_grad()
def evaluate(trainer):
    "학습할 때와 같은 정밀도로 본 테스트 정확도, %"
    model, dm = trainer.lightning_module.eval(), trainer.datamodule
    with trainer.precision_plugin.forward_context():
        hits = [(model(x).argmax(1) == y).sum().item() for x, y in dm.test_dataloader()]
    model.train()
    return round(100 * sum(hits) / len(dm.cifar_test), 2)


def fast(source, seed, quick):
    pl.seed_everything(seed, verbose=False)
    recipe = read_recipe('fast')
    length = dict(max_epochs=1, limit_train_batches=4) if quick else {}
    dm, curve = load(source, **recipe['data']), Curve()
    model = FastModel((3, 32, 32), dm.num_classes, **recipe.get('model', {}))
    trainer = training_only(
        **{**recipe['trainer'], **length}, callbacks=[curve], logger=False
    )
    trainer.fit(model, dm)
    start = time.perf_counter()
    accuracy = evaluate(trainer)
    spent = curve.spent + time.perf_counter() - start
    return dict(seconds=round(spent, 3), accuracy=accuracy, curve=curve.points)


def measure(source, quick, done, save):
    here = machine()
    told = f'{here["processor"]} ({here["capability"]}, {here["precision"]})'
    for name, seed in ORDER:
        if pick(done, name=name, repeat=seed, machine=told) or (quick and seed):
            continue
        if name == OURS:
            made = in_new_process('race.py', source, seed, int(quick))
        else:
            limit = 4096 if quick else 0
            made = in_new_process('airbench.py', name, source, seed, limit)
        made |= {'date': str(date.today()), 'source': Path(source).name}
        done.append(dict(name=name, repeat=seed, machine=told, **made))
        save(done)
    return done


def machines(samples):
    "잰 컴퓨터의 이름, 먼저 잰 것부터"
    return list(dict.fromkeys(sample['machine'] for sample in samples))


def together(samples, *names):
    "두 이름을 같은 시드로 함께 잰 표본, 시드의 차례대로"
    found = []
    for seed in sorted({s['repeat'] for s in samples}):
        both = [s for s in pick(samples, repeat=seed) if s['name'] in names]
        if len(both) == 2:
            found += both
    return found


def values(samples, name, key='accuracy'):
    return [sample[key] for sample in pick(samples, name=name)]


def compared_rows(both, our, name):
    "시간의 비와 정확도의 차이. 시드가 모자라면 닿았는지 말하지 않는다."
    ratio, low, high = faster(both, name, our)
    ours, theirs = values(both, our), values(both, name)
    span = f' ({low:.2f}~{high:.2f})' if len(ours) > 1 else ''
    value = f'{ratio:.2f}배{span}'
    enough = len(ours) >= SEEDS
    met = ratio <= 0.8 if enough else None
    target = f'0.8배 이하 (시드 {SEEDS}개)'
    made = [row(f'{our} / {name}, 시간', value, target, met)]
    if len(ours) > 1:
        gap = statistics.mean(ours) - statistics.mean(theirs)
        p = ttest_ind(ours, theirs, alternative='less').pvalue
        words = f'{gap:+.2f} %p (낮지 않은가의 한쪽 검정 p = {p:.2f})'
        met, target = p >= 0.05 if enough else None, f'p ≥ 0.05 (시드 {SEEDS}개)'
        made.append(row(f'{our} - {name}, 정확도', words, target, met))
    return made


def rows_of_one(samples):
    "한 컴퓨터에서 잰 표본의 줄"
    made = []
    for name in NAMES:
        found = pick(samples, name=name)
        if found:
            seconds = spread(values(samples, name, 'seconds'))
            accuracy = spread(values(samples, name))
            made.append(row(name, f'{seconds}초, 테스트 {accuracy} % ({len(found)}번)'))
    for our in (OURS, EARLIER):
        beside = our == EARLIER and pick(samples, name=BESIDE)
        theirs = BESIDE if beside else THEIRS[0]
        both = together(samples, our, theirs)
        if both:
            made += compared_rows(both, our, theirs)
    return made


def rows(samples):
    made = []
    for where in machines(samples):
        for one in rows_of_one(pick(samples, machine=where)):
            made.append(one | {'what': f'{where}: {one["what"]}'})
    return made


def draw(samples, ax):
    places = machines(samples)
    for sample in samples:
        where, name = places.index(sample['machine']), sample['name']
        points = [*sample['curve'], [sample['seconds'], sample['accuracy']]]
        label = f'{name}, {sample["machine"]}' if sample['repeat'] == 0 else None
        style = {'color': f'C{NAMES.index(name)}', 'ls': ('-', '--', ':')[where % 3]}
        ax.plot(*zip(*points), **style, label=label, alpha=0.7)
    ax.set(xscale='log', xlabel='training, seconds', ylabel='test accuracy, %')
    ax.legend(frameon=False, fontsize=8)


if __name__ == '__main__':
    source, seed, quick = sys.argv[1:]
    prepare()
    print(json.dumps(fast(source, int(seed), int(quick))))
