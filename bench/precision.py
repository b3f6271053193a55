"""(아) 16비트: 같은 학습을 `32-true`와 `bf16-mixed`로, 시드 다섯, 두 에포크.

`bf16-true`는 가중치와 Adam의 상태까지 16비트로 둔 것이다. 시간은 `Trainer.fit` 전체로,
에포크마다의 검증이 들어 있다. 11월 25일에는 다른 코어가 다른 일을 하고 있었다.
"""

import lightning.pytorch as pl
from common import draw_bars, faster_row, fit, load, pick, reuse, row, seconds, spread

from cifar_lit.model import LitModel

TITLE = '16비트'
NAMES = ('32-true', 'bf16-mixed', 'bf16-true')


def trained(source, name, seed, quick):
    "표본 하나"
    pl.seed_everything(seed, verbose=False)
    dm = reuse(source, 32)
    model = LitModel(dm.input_shape, dm.num_classes, channels_last=True)
    trainers = []
    spent = seconds(lambda: trainers.append(fit(model, dm, quick, name)))
    [result] = trainers[0].test(model, dm, verbose=False)
    accuracy = round(100 * result['test_acc'], 2)
    return dict(name=name, seed=seed, seconds=round(spent, 1), accuracy=accuracy)


def measure(source, quick):
    source = load(source).source
    seeds = 1 if quick else 5
    return [trained(source, name, k, quick) for k in range(seeds) for name in NAMES]


def rows(samples):
    accuracies = {
        name: [sample['accuracy'] for sample in pick(samples, name=name)]
        for name in NAMES
    }
    made = [row(name, f'테스트 {spread(accuracies[name])} %') for name in NAMES]
    base = NAMES[0]
    for name in NAMES[1:]:
        pairs = zip(accuracies[name], accuracies[base], strict=True)
        differences = [ours - theirs for ours, theirs in pairs]
        made.append(row(f'{name} - {base}, 같은 시드', f'{spread(differences)} %p'))
        label = f'{name} / {base}, 학습과 검증의 빠르기'
        made.append(faster_row(samples, name, base, label=label))
    return made


def draw(samples, ax):
    draw_bars(ax, samples, NAMES, lambda sample: sample['seconds'], 'fit, seconds')
