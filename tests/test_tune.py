"""Ray 클러스터에서 검색: 두 노드, 명령의 죽음, 노드의 죽음, 잘못된 입력."""

import math
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from given import ENV
from ray.tune import Result

from cifar_lit.cli import main
from cifar_lit.parts.files import InputError
from cifar_lit.parts.search import read_sweep
from cifar_lit.parts.tune import _as_study, _open_storage, _watch, tune

BIN = Path(sys.executable).parent
HOSTS = {'a': '127.0.0.2', 'b': '127.0.0.3'}
SWEEP = {
    'name': 'twins',
    'method': 'random',
    'metric': {'name': 'val_loss', 'goal': 'minimize'},
    'command': ['${env}', 'cifar-lit', 'fit', '${args}'],
    'parameters': {
        'data.source': {'value': 'toy'},
        'data.val_size': {'value': 50},
        'trainer.max_epochs': {'value': 2},
        'trainer.limit_train_batches': {'value': 300},
        'last.steps': {'value': 10},
        'data.batch_size': {'values': [4]},
        'model.learning_rate': {'values': [1e-4]},
    },
}


def free_port(host):
    with socket.socket() as server:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip(f'이 컴퓨터에서는 {host}을(를) 노드의 주소로 쓸 수 없습니다.')
        return server.getsockname()[1]


def wait_until(found, process, log):
    "`found()`가 참이 될 때까지. 그 전에 `process`가 끝나면 실패"
    for _ in range(2400):
        if value := found():
            return value
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)
    raise AssertionError(log.read_text()[-3000:])


class Cluster:
    "이 컴퓨터의 두 주소를 노드 둘로 쓴다. `ray stop`은 남의 것도 멈추므로 쓰지 않는다."

    def __init__(self, folder):
        self.folder, self.nodes = folder, {}
        self.address = f'{HOSTS["a"]}:{free_port(HOSTS["a"])}'
        token = folder / 'token'
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.env = {
            **ENV,
            'RAY_ADDRESS': self.address,
            'RAY_AUTH_MODE': 'token',
            'RAY_AUTH_TOKEN_PATH': str(token),
            'RAY_USAGE_STATS_ENABLED': '0',
            'RAY_health_check_failure_threshold': '2',  # 6초면 죽은 것으로 안다.
            'OMP_NUM_THREADS': '1',
            'WANDB_MODE': 'disabled',
        }
        self.env.pop('PYTHONDONTWRITEBYTECODE', None)  # 작업자마다 torch를 번역한다.

    def start(self, name):
        "노드 `a`(머리)나 `b`"
        port = self.address.split(':')[1]
        head = ['--head', '--port', port, '--include-dashboard=false']
        words = [BIN / 'ray', 'start', '--block', f'--node-ip-address={HOSTS[name]}']
        words += head if name == 'a' else ['--address', self.address]
        words += ['--num-cpus=1', '--num-gpus=0', '--object-store-memory=80000000']
        words += ['--disable-usage-stats', f'--temp-dir={self.folder / name}']
        log = self.folder / f'{name}.log'
        with open(log, 'w') as file:
            self.nodes[name] = subprocess.Popen(
                words,
                env=self.env,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: '-- --block' in log.read_text(), self.nodes[name], log)

    def kill(self, name):
        "노드의 프로세스를 모두 끝낸다. 작업자는 노드가 사라지면 스스로 끝난다."
        node = self.nodes.pop(name)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait(60)

    def search(self, place, log, **options):
        options = {'ray': self.address, 'storage': 'shared', 'trials': 2} | options
        words = [BIN / 'cifar-lit', 'search', 'sweep.yaml']
        words += [f'--{name}={value}' for name, value in options.items()]
        with open(place / log, 'w') as file:
            return subprocess.Popen(
                words, cwd=place, env=self.env, stdout=file, stderr=subprocess.STDOUT
            )


@pytest.fixture(scope='module')
def cluster():
    "노드 둘. 유닉스 소켓의 경로가 길면 안 되므로 짧은 폴더에 둔다."
    folder = Path(tempfile.mkdtemp(prefix='ray-', dir='/tmp'))
    made = Cluster(folder)
    try:
        made.start('a')
        made.start('b')
        yield made
    finally:
        for name in [*made.nodes]:
            made.kill(name)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(tmp_path, monkeypatch):
    write(tmp_path, SWEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place, sweep):
    (place / 'sweep.yaml').write_text(yaml.safe_dump(sweep))


def folders(log):
    "시도가 돈 노드의 주소(명령과 같은 노드이면 '')마다 실행 폴더"
    line = r'\(trial pid=\d+(?:, ip=([\d.]+))?\) 실행 폴더: (\S+)'
    return dict(re.findall(line, log.read_text()))


def saved(folder):
    return list(Path(folder).glob('checkpoints/last.ckpt'))


def both_saved(log):
    found = folders(log)
    return found if len(found) == 2 and all(map(saved, found.values())) else None


def check_twins(place, log):
    "두 시도는 값이 같으므로, 죽었다 이어서 한 것도 가중치가 비트까지 같아야 한다."
    told = (place / log).read_text()
    assert told.count('COMPLETE') == 2, told[-3000:]
    runs = sorted((place / 'shared').glob('trial-*'))
    assert len(runs) == 2
    states = [torch.load(saved(run)[0])['state_dict'] for run in runs]
    for name, weights in states[0].items():
        assert torch.equal(weights, states[1][name]), name
    steps = re.findall(r'스텝 ([\d,]+) 다음부터 이어서 합니다', told)
    return [int(step.replace(',', '')) for step in steps]


def test_a_killed_search_goes_on_on_both_nodes(place, cluster):
    first, log = cluster.search(place, 'first.log'), place / 'first.log'
    used = wait_until(lambda: both_saved(log), first, log)
    assert set(used) == {'', HOSTS['b']}
    first.kill()
    first.wait(60)
    again = cluster.search(place, 'again.log')
    assert again.wait(240) == 0, (place / 'again.log').read_text()[-3000:]
    steps = check_twins(place, 'again.log')
    assert steps and all(0 < step <= 600 for step in steps)


def test_a_value_of_the_wrong_type_is_named(place, cluster):
    wrong = {**SWEEP['parameters'], 'data.batch_size': {'values': ['many']}}
    write(place, {**SWEEP, 'parameters': wrong})
    done = cluster.search(place, 'log')
    assert done.wait(240) == 1
    told = (place / 'log').read_text().split('cifar-lit: ')[-1]
    assert 'Traceback' not in (place / 'log').read_text()
    assert 'data.batch_size' in told and 'Got value: many' in told
    assert 'sweep.yaml의 값을 고치세요' in told and '--storage에 새 폴더' in told


def test_a_trial_of_a_dead_node_is_finished_on_the_other(place, cluster):
    search, log = cluster.search(place, 'log'), place / 'log'
    wait_until(lambda: saved(folders(log).get(HOSTS['b'], 'none')), search, log)
    cluster.kill('b')
    name = Path(folders(log)[HOSTS['b']]).name.removeprefix('trial-')
    assert search.wait(240) == 0, log.read_text()[-3000:]
    [step] = check_twins(place, 'log')
    assert 0 < step < 600
    assert f'시도 {name}이(가) 실패했습니다' in log.read_text()


def test_nothing_at_the_address(place):
    address = f'{HOSTS["a"]}:{free_port(HOSTS["a"])}'
    with pytest.raises(InputError, match=f'{address}: Ray 클러스터에 닿지 못했습니다'):
        tune('sweep.yaml', address, 'shared')
    assert not (place / 'shared').exists()


def open_storage(storage, trials=2):
    _open_storage(read_sweep('sweep.yaml'), trials, storage).release()


@pytest.mark.parametrize(
    ('change', 'trials', 'named'),
    [
        ({'method': 'bayes'}, 2, '다른 검색'),
        ({'metric': {'name': 'val_acc', 'goal': 'maximize'}}, 2, '다른 검색'),
        ({}, 3, '--trials를 되돌리세요'),
    ],
)
@pytest.mark.parametrize('begun', ['tune', 'trial-1'])
def test_the_storage_of_another_search(place, change, trials, named, begun):
    write(place, {**SWEEP, 'metric': {'name': 'loss', 'goal': 'minimize'}})
    open_storage('shared')
    write(place, SWEEP)
    open_storage('shared')  # 시도가 시작되지 않았으면 고쳐도 된다.
    (place / 'shared' / begun).mkdir()
    open_storage('shared')
    write(place, {**SWEEP, **change})
    with pytest.raises(InputError, match=named):
        open_storage('shared', trials)


@pytest.mark.parametrize(
    ('change', 'trials', 'named'),
    [({}, 0, 'trials=0'), ({'method': 'guess'}, 2, 'method=guess')],
)
def test_bad_sweeps(place, change, trials, named):
    write(place, {**SWEEP, **change})
    with pytest.raises(InputError, match=named):
        tune('sweep.yaml', trials=trials)


def test_another_folder_is_not_touched(place):
    (place / 'diary').mkdir()
    (place / 'diary/today.txt').write_text('내 일기')
    for storage, named in [('diary', '다른 파일이'), ('sweep.yaml', 'File exists')]:
        with pytest.raises(InputError, match=named):
            open_storage(storage)
    assert [path.name for path in (place / 'diary').iterdir()] == ['today.txt']


def result(trial, error=None, **metrics):
    config = {'data.batch_size': 4, 'model.learning_rate': 1e-4}
    metrics |= {'config': config} if metrics else {}
    metrics['trial_id'] = trial
    return Result(checkpoint=None, metrics=metrics, error=error, path=None)


def test_failed_trials_do_not_hide_the_others(place, capsys):
    results = [
        result('a', val_loss=0.5, whole=True),
        result('b', val_loss=0.1),
        result('c', val_loss=math.nan, whole=True),
        result('d', MemoryError(), val_loss=0.1),
        result('e', MemoryError()),
    ]
    study = _as_study(read_sweep('sweep.yaml'), results, 'shared')
    states = [trial.state.name for trial in study.trials]
    assert states == ['COMPLETE', 'PRUNED', 'FAIL', 'FAIL', 'FAIL']
    assert study.best_trial.user_attrs == {'run_dir': 'shared/trial-a'}
    assert '시도 5번 가운데 3번은 값이 없습니다' in capsys.readouterr().out


def test_no_trial_has_a_value(place, monkeypatch, capsys):
    study = _as_study(read_sweep('sweep.yaml'), [result('e', MemoryError())], 's')
    monkeypatch.setattr('cifar_lit.parts.tune.tune', lambda *args, **given: study)
    with pytest.raises(SystemExit, match='끝까지 한 시도가 없습니다'):
        main(['search', 'sweep.yaml', '--ray=auto'])
    assert 'FAIL' in capsys.readouterr().out


def test_an_error_without_a_pickle_is_told(tmp_path, capsys):
    trial = SimpleNamespace(trial_id='a', pickled_error_file=None)
    trial.error_file = tmp_path / 'error.txt'
    trial.error_file.write_text('Failure # 1 (오늘)\n앞\nFailure # 2 (오늘)\n뒤\n끝\n')
    _watch().on_trial_recover(trial)
    assert '시도 a이(가) 실패했습니다(뒤).' in capsys.readouterr().out


@pytest.mark.parametrize(
    'given', [['--journal=a.jsonl', '--ray=auto'], ['--storage=a']]
)
def test_options_that_do_not_go_together(place, given):
    with pytest.raises(SystemExit, match='--ray 없이'):
        main(['search', 'sweep.yaml', *given])
