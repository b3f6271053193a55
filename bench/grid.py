"""`recipe`에서 쓰는 학습률을 검증 사진에서 고르기.

줄마다 학습률 몇 가지를 시드 셋으로 학습하고, 평균 검증 정확도가 가장 높은 것을 쓴다.
나머지 설정은 `recipe`와 같다. `quick`에서는 커널(Muon)과 나머지(Adam)의 학습률을 함께
고르고, 'Muon'에서는 둘의 비를 둘만 보며, 'torch.optim.Muon'은 나머지의 학습률을
따르고 가중치 감쇠를 함께 고른다.
"""

import statistics
from itertools import product

from common import load, pick, row, spread
from recipe import fit

TITLE = '학습률 고르기'
SEEDS = 3


def grid(learning_rate, **others):
    "값의 모든 짝"
    values = {'learning_rate': learning_rate, **others}
    return [dict(zip(values, chosen)) for chosen in product(*values.values())]


GRIDS = {
    'ConvNet': grid((5e-4, 1e-3, 2e-3, 4e-3)),
    'ConvNet + one-cycle': grid((1e-3, 2e-3, 4e-3, 8e-3)),
    'FastNet': grid((1e-3, 2e-3, 5e-3, 1e-2)),
    '16 px': grid((1e-3, 2e-3, 5e-3, 1e-2)),
    'whitening': grid((1e-3, 2e-3, 5e-3, 1e-2, 2e-2)),
    'Adam + one-cycle': grid((2e-3, 5e-3, 1e-2, 2e-2, 4e-2)),
    'flip at test': grid(
        (0.12, 0.24, 0.48), other_learning_rate=(0.02, 0.04, 0.08, 0.16, 0.32)
    ),
    'Muon': [
        {'learning_rate': rate, 'other_learning_rate': round(rate * ratio, 4)}
        for ratio in (1 / 12, 2 / 3)
        for rate in (0.03, 0.06, 0.12, 0.24)
    ],
    'torch.optim.Muon': grid(
        (0.48, 0.96), other_learning_rate=(0.16,), weight_decay=(0.0, 0.1)
    ),
}


def sample(source, name, seed, settings):
    trainer, model, dm, _ = fit(source, name, seed, **settings)
    trainer.limit_val_batches = 1.0  # `fit`은 검증하지 않는다.
    [result] = trainer.validate(model, dm, verbose=False)
    accuracy = round(100 * result['val_acc'], 2)
    return dict(
        name=name, repeat=seed, split='val', settings=settings, accuracy=accuracy
    )


def measure(source, quick):
    pictures = load(source).source
    return [
        sample(pictures, name, seed, settings)
        for name, choices in GRIDS.items()
        for settings in choices[: 1 if quick else None]
        for seed in range(1 if quick else SEEDS)
    ]


def accuracies(samples, name):
    "설정마다 (설정, 검증 정확도의 목록)"
    found = {}
    for sample in pick(samples, name=name):
        settings = sample['settings']
        key = tuple(settings.items())
        found.setdefault(key, (settings, []))[1].append(sample['accuracy'])
    return list(found.values())


def best(samples, name):
    "평균 검증 정확도가 가장 높은 설정과 그 정확도"
    found = accuracies(samples, name)
    return max(found, key=lambda choice: statistics.mean(choice[1]))


def rows(samples):
    made = []
    for name in GRIDS:
        settings, values = best(samples, name)
        words = ', '.join(f'{key} {value:g}' for key, value in settings.items())
        made.append(row(name, f'{words}: 검증 {spread(values)} %'))
    return made


def draw(samples, ax):
    for name in GRIDS:
        found = {}
        for settings, values in accuracies(samples, name):
            rate = settings['learning_rate']
            found[rate] = max(found.get(rate, 0), statistics.mean(values))
        ax.plot(found.keys(), found.values(), 'o-', label=name)
    ax.set(xscale='log', xlabel='learning rate', ylabel='validation accuracy, %')
    ax.legend(frameon=False, fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
