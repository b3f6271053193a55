"""(자) 검색: `cifar-lit search`로 16번, 고른 것과 기본을 시드 다섯으로.

`LitModel`로 두 에포크를 학습한다. 고르기는 시드 42의 `val_loss`로 하고, 비교는 테스트
정확도로 한다. 에포크의 끝마다(마지막에도) `val_loss`가 그때까지의 중앙값보다 나쁜
시도는 그만둔 것으로 친다. 멈췄다가 다시 부르면 bench/out/search에서 이어서 찾는다.
"""

import shutil
import subprocess
from pathlib import Path

import lightning.pytorch as pl
import yaml
from common import SCRATCH, fit, load, pick, reuse, row, spread

from cifar_lit.model import LitModel
from cifar_lit.parts.search import open_study, read_sweep

TITLE = '검색'
STATES = ('COMPLETE', 'PRUNED')
SWEEP = Path(__file__).with_name('sweep.yaml')
TRIALS, SEEDS = 16, 5
QUICKLY = {
    'trainer.max_epochs': {'value': 1},
    'trainer.limit_train_batches': {'value': 10},
    'trainer.limit_val_batches': {'value': 10},
}
DEFAULT = {'model.learning_rate': 2e-4, 'data.batch_size': 32}


def searched(source, folder, trials, quick):
    "`cifar-lit search`가 한 시도"
    sweep = yaml.safe_load(SWEEP.read_text(encoding='utf-8'))
    source = str(Path(source).resolve()) if Path(source).exists() else source
    sweep['parameters']['data.source'] = {'value': source}
    if quick:
        sweep['parameters'] |= QUICKLY
    path = folder / SWEEP.name
    path.write_text(yaml.safe_dump(sweep))
    command = ['cifar-lit', 'search', path.name, '--trials', str(trials)]
    environment = ['env', 'WANDB_MODE=disabled']
    subprocess.run(
        [*environment, *command], cwd=folder, stdout=subprocess.DEVNULL, check=True
    )
    study = open_study(read_sweep(path), str(folder / 'search.jsonl'))
    return [
        dict(
            name='trial',
            number=trial.number,
            state=trial.state.name,
            value=trial.value,
            seconds=round(trial.duration.total_seconds(), 1),
            **trial.params,
        )
        for trial in study.trials
        if trial.state.name in STATES
    ]


def tested(source, name, options, seed, quick):
    "고른 값으로 처음부터 학습해 테스트한 표본"
    pl.seed_everything(seed, verbose=False)
    data = {key.removeprefix('data.'): each for key, each in options.items()}
    rate = data.pop('model.learning_rate')
    dm = reuse(source, **data)
    model = LitModel(dm.input_shape, dm.num_classes, rate, channels_last=True)
    [result] = fit(model, dm, quick).test(model, dm, verbose=False)
    return dict(name=name, seed=seed, accuracy=round(100 * result['test_acc'], 2))


def best(samples):
    "끝까지 한 시도 가운데 `val_loss`가 가장 작은 것"
    finished = pick(samples, name='trial', state='COMPLETE')
    return min(finished, key=lambda sample: sample['value'])


def measure(source, quick):
    trials, seeds = (2, 1) if quick else (TRIALS, SEEDS)
    folder = SCRATCH / ('search-quick' if quick else 'search')
    folder.mkdir(parents=True, exist_ok=True)
    samples = searched(source, folder, trials, quick)
    chosen = {key: each for key, each in best(samples).items() if '.' in key}
    source = load(source).source
    for seed in range(seeds):
        for name, options in (('default', DEFAULT), ('best', chosen)):
            samples.append(tested(source, name, options, seed, quick))
    shutil.rmtree(folder)
    return samples


def rows(samples):
    finished, pruned = (pick(samples, name='trial', state=state) for state in STATES)
    chosen = best(samples)
    options = ', '.join(f'{k} {v:.3g}' for k, v in chosen.items() if '.' in k)
    ours, theirs = (
        [sample['accuracy'] for sample in pick(samples, name=name)]
        for name in ('best', 'default')
    )
    gains = [one - other for one, other in zip(ours, theirs, strict=True)]
    return [
        row('시도', f'마친 것 {len(finished)}번, 그만둔 것 {len(pruned)}번'),
        row('고른 값', f'{options} (val_loss {chosen["value"]:.3f})'),
        row('기본', f'테스트 {spread(theirs)} %'),
        row('고른 것', f'테스트 {spread(ours)} %'),
        row('고른 것 - 기본, 같은 시드', f'{spread(gains)} %p'),
    ]


def draw(samples, ax):
    for state, style in zip(STATES, 'ox'):
        found = pick(samples, name='trial', state=state)
        rates = [sample['model.learning_rate'] for sample in found]
        ax.plot(rates, [s['value'] for s in found], style, label=state.lower())
    ax.axvline(DEFAULT['model.learning_rate'], color='gray', lw=1, label='default')
    ax.set(xscale='log', xlabel='learning rate', ylabel='val_loss (pruned: the last)')
    ax.legend(frameon=False, fontsize=8)
