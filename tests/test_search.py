"""검색: 함께 찾기, 죽은 뒤에 이어서 찾기, 그만두기, 잘못된 입력."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from given import ENV, toy_album

from cifar_lit.parts.files import InputError
from cifar_lit.parts.search import open_study, read_sweep, search

BIN = Path(sys.executable).parent
QUIET = {**ENV, 'WANDB_MODE': 'disabled', 'OMP_NUM_THREADS': '1'}
SWEEP = {
    'name': 'rates',
    'method': 'bayes',
    'metric': {'name': 'val_loss', 'goal': 'minimize'},
    'command': ['${env}', 'cifar-lit', 'fit', '${args}'],
    'parameters': {
        'data.source': {'value': 'photos'},
        'data.val_size': {'value': 7},
        'data.batch_size': {'values': [4, 8]},
        'trainer.max_epochs': {'value': 2},
        'last.steps': {'value': 3},
        'model.learning_rate': {
            'distribution': 'log_uniform_values',
            'min': 1e-5,
            'max': 1e-3,
        },
    },
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    "사진 폴더와 sweep.yaml이 있는 폴더"
    toy_album(tmp_path / 'photos')
    write(tmp_path, SWEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place, sweep):
    (place / 'sweep.yaml').write_text(yaml.safe_dump(sweep))


def start(place, log, trials=4):
    words = [BIN / 'cifar-lit', 'search', 'sweep.yaml', '--trials', str(trials)]
    with open(place / log, 'w') as file:
        return subprocess.Popen(
            words, cwd=place, env=QUIET, stdout=file, stderr=subprocess.STDOUT
        )


def study_of(place):
    return open_study(read_sweep(place / 'sweep.yaml'), str(place / 'search.jsonl'))


def states(study):
    return [trial.state.name for trial in study.trials]


def test_two_workers_share_a_journal(place):
    both = [start(place, f'{k}.log') for k in (0, 1)]
    for k, worker in enumerate(both):
        assert worker.wait(240) == 0, (place / f'{k}.log').read_text()[-3000:]
    study = study_of(place)
    finished = [s for s in states(study) if s in ('COMPLETE', 'PRUNED')]
    assert 4 <= len(finished) <= 5  # 둘이 마지막 것을 함께 시작할 수 있다.
    assert len({trial.user_attrs['lock'] for trial in study.trials}) == 2
    assert len(list(place.glob('search/trial-*'))) == len(study.trials)
    assert not list(place.glob('search/*-*.lock'))


def test_wandb_runs_the_same_file(place):
    "`wandb agent`가 만드는 명령과 변수로 한 번 돌린다."
    from wandb.sdk.launch.sweeps.utils import (
        create_sweep_command,
        create_sweep_command_args,
        load_sweep_config,
    )

    sweep = load_sweep_config(str(place / 'sweep.yaml'))
    chosen = {'data.batch_size': 8, 'model.learning_rate': 0.0003}
    values = {
        name: {'value': p.get('value', chosen.get(name))}
        for name, p in sweep['parameters'].items()
    }
    macros = create_sweep_command_args({'args': values}) | {'env': []}
    words = []
    for word in create_sweep_command(sweep['command']):
        words += macros[word[2:-1]] if word.startswith('${') else [word]
    ids = {'WANDB_SWEEP_ID': 'sweep123', 'WANDB_RUN_ID': 'abcd1234'}
    variables = {**QUIET, 'WANDB_MODE': 'offline', **ids}
    words = [BIN / words[0], *words[1:], '--run_dir', 'run']
    done = subprocess.run(
        words, cwd=place, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((place / 'run/run.json').read_text())['wandb_id'] == 'abcd1234'
    assert len(list(place.glob('run/wandb/offline-run-*-abcd1234'))) == 1
    config = yaml.safe_load((place / 'run/config.yaml').read_text())
    assert config['model']['learning_rate'] == 0.0003


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_search_goes_on_with_its_trial(place, number):
    worker = start(place, 'first.log', trials=2)
    while not list(place.glob('search/trial-001/checkpoints/last.ckpt')):
        assert worker.poll() is None, (place / 'first.log').read_text()[-3000:]
        time.sleep(0.01)
    worker.send_signal(number)
    assert worker.wait(60) != 0
    if number == signal.SIGKILL:
        with open(place / 'search.jsonl', 'a') as journal:
            journal.write('{"op_code": 5, "trial')  # 반만 쓴 줄
    again = start(place, 'again.log', trials=2)
    assert again.wait(240) == 0, (place / 'again.log').read_text()[-3000:]
    study = study_of(place)
    assert states(study) == ['COMPLETE', 'FAIL', 'COMPLETE']
    assert study.trials[1].params == study.trials[2].params
    told = (place / 'again.log').read_text()
    assert 'cifar-lit resume search/trial-001' in told
    assert not (place / 'search/trial-002').exists()


def test_a_bad_trial_is_pruned(place, monkeypatch):
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    study = study_of(place)
    good = {'data.batch_size': 4, 'model.learning_rate': 1e-3}
    for _ in range(4):
        made = {'value': 0.1, 'intermediate_values': {0: 0.1, 1: 0.1}}
        space = read_sweep('sweep.yaml').parameters
        study.add_trial(
            optuna.trial.create_trial(params=good, distributions=space, **made)
        )
    study = search('sweep.yaml', trials=5)
    assert states(study)[-1] == 'PRUNED'
    assert list(study.trials[-1].intermediate_values) == [0]


def test_folders_of_another_search_are_not_scored(place, monkeypatch):
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    search('sweep.yaml', trials=1)
    (place / 'search.jsonl').unlink()
    with pytest.raises(InputError, match='search/trial-000: 이 저널에 없는 시도'):
        search('sweep.yaml', trials=1)
    with pytest.raises(InputError, match='이 저널에 없는 시도'):
        search('sweep.yaml', journal='search.log', trials=1)
    assert search('sweep.yaml', journal='other.jsonl', trials=1).best_trial


def test_a_finished_grid_trains_nothing_more(place, monkeypatch):
    monkeypatch.setenv('WANDB_MODE', 'disabled')
    grid = json.loads(json.dumps(SWEEP)) | {'method': 'grid'}
    grid['parameters']['model.learning_rate'] = {'value': 1e-3}
    write(place, grid)
    for _ in range(2):
        assert len(search('sweep.yaml').trials) == 2


def test_a_journal_that_cannot_be_is_named(place):
    (place / 'file').touch()
    with pytest.raises(InputError, match='file/s.jsonl: 저널로 읽을 수 없습니다'):
        search('sweep.yaml', journal='file/s.jsonl')
    with pytest.raises(InputError, match='시도의 폴더 sweep.yaml를 만들 수 없습니다'):
        search('sweep.yaml', journal='sweep.yaml.jsonl')


def test_a_value_of_the_wrong_type_is_named(place, cli):
    wrong = json.loads(json.dumps(SWEEP))
    wrong['parameters']['data.batch_size'] = {'values': ['many']}
    write(place, wrong)
    done = cli('search', 'sweep.yaml', check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'data.batch_size' in done.stderr and 'many' in done.stderr
    assert 'sweep.yaml의 값을 고치세요' in done.stderr


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'name': 'other'}, 'rates'),
        ({'metric': {'name': 'val_acc', 'goal': 'maximize'}}, '다른 명령이나'),
        ({'method': 'guess'}, 'method=guess'),
        ({'method': 'grid'}, 'model.learning_rate에 values'),
        ({'parameters': {'data.batch_size': 32}}, 'sweep.yaml로 읽을 수'),
        ({'parameters': {'data.batch_size': [4, 8]}}, 'parameters.data.batch_size'),
        ({'parameters': {'data.source': 'photos'}}, 'parameters.data.source'),
        ({'command': ['python', 'train.py']}, 'cifar-lit fit'),
        ({'parameters': 3}, 'sweep.yaml로 읽을 수 없습니다'),
    ],
)
def test_other_bad_sweeps(place, change, named):
    study_of(place)
    write(place, {**SWEEP, **change})
    with pytest.raises(InputError, match=named):
        study_of(place)


def test_another_file_is_not_touched(place):
    (place / 'search.jsonl').write_text('내 일기\n쓰다 만 줄')
    with pytest.raises(InputError, match='저널로 읽을 수 없습니다'):
        study_of(place)
    assert (place / 'search.jsonl').read_text() == '내 일기\n쓰다 만 줄'
