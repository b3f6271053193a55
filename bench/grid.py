"""`recipe`에서 쓰는 학습률을 검증 사진에서 고르기.

줄마다 학습률 몇 가지를 시드 셋으로 학습하고, 평균 검증 정확도가 가장 높은 것을 쓴다.
한 줄의 나머지 설정은 `recipe`와 같다. Muon의 줄에서 나머지 매개변수(Adam)의 학습률은
`quick.yaml`에 적힌 비율을 따른다. 'torch.optim.Muon'에서는 가중치 감쇠도 함께 고른다.
"""

import statistics

from common import load, pick, row, spread
from recipe import fit

TITLE = '학습률 고르기'
SEEDS = 3
RATES = {
    'ConvNet': (5e-4, 1e-3, 2e-3, 4e-3),
    'ConvNet + one-cycle': (1e-3, 2e-3, 4e-3, 8e-3),
    'whitening': (1e-3, 2e-3, 5e-3, 1e-2, 2e-2),
    'Adam + one-cycle': (2e-3, 5e-3, 1e-2, 2e-2, 4e-2),
    'Muon': (0.03, 0.06, 0.12, 0.24),
    'flip at test': (0.06, 0.12, 0.24, 0.48),
    'torch.optim.Muon': (0.06, 0.12, 0.24, 0.48),
}
DECAYS = (0.0, 0.1, 1.0)


def choices(name):
    "줄 `name`에서 시험할 설정"
    decays = DECAYS if name == 'torch.optim.Muon' else (0.0,)
    for learning_rate in RATES[name]:
        for weight_decay in decays:
            settings = {'weight_decay': weight_decay} if len(decays) > 1 else {}
            yield {'learning_rate': learning_rate, **settings}


def sample(source, name, seed, settings):
    trainer, model, dm, _ = fit(source, name, seed, **settings)
    trainer.limit_val_batches = 1.0  # `fit`은 검증하지 않는다.
    [result] = trainer.validate(model, dm, verbose=False)
    accuracy = round(100 * result['val_acc'], 2)
    return dict(name=name, repeat=seed, split='val', **settings, accuracy=accuracy)


def measure(source, quick):
    pictures = load(source).source
    return [
        sample(pictures, name, seed, settings)
        for name in RATES
        for settings in list(choices(name))[: 1 if quick else None]
        for seed in range(1 if quick else SEEDS)
    ]


def accuracies(samples, name):
    "설정마다 검증 정확도의 목록"
    found = {}
    for sample in pick(samples, name=name):
        key = sample['learning_rate'], sample.get('weight_decay', 0.0)
        found.setdefault(key, []).append(sample['accuracy'])
    return found


def best(samples, name):
    "평균 검증 정확도가 가장 높은 (학습률, 가중치 감쇠)"
    found = accuracies(samples, name)
    return max(found, key=lambda key: statistics.mean(found[key]))


def rows(samples):
    made = []
    for name in RATES:
        chosen = best(samples, name)
        decay = f', 가중치 감쇠 {chosen[1]:g}' if name == 'torch.optim.Muon' else ''
        accuracy = spread(accuracies(samples, name)[chosen])
        made.append(row(name, f'학습률 {chosen[0]:g}{decay}: 검증 {accuracy} %'))
    return made


def draw(samples, ax):
    for name in RATES:
        found = {}
        for (rate, _), values in accuracies(samples, name).items():
            found[rate] = max(found.get(rate, 0), statistics.mean(values))
        ax.plot(found.keys(), found.values(), 'o-', label=name)
    ax.set(xscale='log', xlabel='learning rate', ylabel='validation accuracy, %')
    ax.legend(frameon=False, fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
