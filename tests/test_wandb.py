"""W&B가 실패해도 학습은 그대로이고, 학습이 죽어도 기록이 남는가.

가짜 서버(`fake_wandb`)와, 갈라져 나온 작은 학습(`wandb_zygote`)으로 정말 해 본다.
"""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from fake_wandb import KEY, closed_url, fake_wandb
from given import ENV, ROOT
from wandb_zygote import cores

from cifar_lit.parts import loggers
from cifar_lit.parts.loggers import logged_rows, run_parts

STEP = 'trainer/global_step'
LIMIT = 10  # 늦어도 되는 시간(초). 재 보면 그 절반이 되지 않는다.
WANDB = str(Path(sys.executable).with_name('wandb'))


@pytest.fixture(scope='module')
def server():
    with fake_wandb() as made:
        yield made
        assert made.errors == []


@pytest.fixture(autouse=True)
def fresh(server):
    server.mode, server.slow, server.committed = 'ok', 0, 0
    server.runs.clear()


class Zygote:
    def __init__(self, home):
        clean = {k: v for k, v in os.environ.items() if not k.startswith('WANDB')}
        places = {'PYTHONPATH': str(ROOT), 'HOME': str(home)}
        self.env = {**clean, **places, 'OMP_NUM_THREADS': '1'}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / 'tests/wandb_zygote.py')],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == {'ready': True}

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def start(self, folder, env, **case):  # 자식의 번호
        folder.mkdir(exist_ok=True)
        for name in ('answer.json', 'written'):
            (folder / name).unlink(missing_ok=True)
        self.folder = folder
        line = json.dumps({'folder': str(folder), 'env': env, **case})
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()
        return self.answer()['pid']

    def end(self):  # 종료 코드, 시각, 남긴 글
        done = self.answer()
        answer = self.folder / 'answer.json'
        if answer.exists():
            done |= json.loads(answer.read_text())
        done['stderr'] = (self.folder / 'stderr.txt').read_text()
        return done

    def run(self, *arguments, **case):
        self.start(*arguments, **case)
        return self.end()


@pytest.fixture(scope='module')
def zygote(tmp_path_factory):
    made = Zygote(tmp_path_factory.mktemp('home'))
    yield made
    made.process.stdin.close()
    made.process.wait(timeout=10)


@pytest.fixture
def full(tmp_path):
    "자리가 1 MB인 폴더"
    folder = tmp_path / 'full'
    folder.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip('tmpfs를 올릴 수 없습니다(root가 아니거나 허락되지 않음).')
    yield folder
    subprocess.run(['umount', str(folder)], check=True)


OFF = {'WANDB_MODE': 'offline'}


def online(url):
    return {'WANDB_BASE_URL': url, 'WANDB_API_KEY': KEY}


@pytest.fixture(scope='module')
def without(zygote, tmp_path_factory):
    "W&B 없이 학습한 것"
    return zygote.run(tmp_path_factory.mktemp('without'), {'WANDB_MODE': 'disabled'})


@pytest.fixture(scope='module')
def table():
    rows = []
    yield rows
    sys.__stdout__.write('\n' + '\n'.join(['경우 | 시작 +초 | 끝 +초', *rows]) + '\n')


@pytest.fixture
def check(without, table, request):
    "늦지 않고, 가중치가 같고, 한 번 알리고, 오류를 쏟지 않았는가"

    def compare(done, told):
        plain, tried = [
            (one['started'] - one['began'], one['exited'] - one['ended'])
            for one in (without, done)
        ]
        start, end = tried[0] - plain[0], tried[1] - plain[1]
        table.append(f'{request.node.name} | {start:+.1f} | {end:+.1f}')
        assert start < LIMIT and end < LIMIT
        assert done['code'] == 0 and done['weights'] == without['weights']
        assert done['stderr'].count('UserWarning: W&B') == 1, done['stderr']
        assert told in done['stderr']
        assert (
            'Traceback' not in done['stderr'] and 'Logging error' not in done['stderr']
        )

    return compare


def runs(folder):
    return [path.name for path in Path(folder, 'wandb').glob('*run-*')]


def only_offline(folder):
    [name] = runs(folder)
    return name.startswith('offline-')


PREPARE = """
import psutil
from cifar_lit.parts.loggers import SafeWandbLogger, prepare_wandb
prepare_wandb().join()
before = [child.name() for child in psutil.Process().children()]
SafeWandbLogger(save_dir='.').start({})
print(*before, len(psutil.Process().children()))
"""


@pytest.mark.parametrize('mode, told', [('offline', 'wandb-core 1'), ('disabled', '0')])
def test_the_process_starts_before_the_run_and_once(tmp_path, mode, told):
    env = {**ENV, 'WANDB_MODE': mode, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', PREPARE]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert done.stdout.strip() == told, done.stdout + done.stderr


def test_good_server_gets_everything(zygote, server, tmp_path, without):
    server.slow = 1.5  # 체크포인트의 파일이 둘이므로 1초인 finish_timeout보다 길다.
    env = online(server.url) | {'WANDB_FINISH_TIMEOUT': '1'}
    options = {'checkpoint': True, 'logger': {'log_model': True}}
    done = zygote.run(tmp_path, env, **options)
    assert done['where'].startswith(server.url) and 'UserWarning' not in done['stderr']
    [run] = [run for run in server.runs.values() if run.history]
    assert len(run.history) == 13 and run.exit_codes == [0]
    assert {'config.yaml', 'output.log'} <= set(run.uploaded)
    assert server.committed == 1
    assert done['weights'] == without['weights']


def test_server_closed(zygote, tmp_path, check):
    done = zygote.run(tmp_path, online(closed_url()))
    check(
        done, '에 닿지 않음). 오프라인으로 기록하니 나중에 올리세요: wandb sync wandb/'
    )
    assert only_offline(tmp_path) and len(logged(tmp_path)) == 13


def test_server_silent_from_the_start(zygote, server, tmp_path, check):
    server.mode = 'silent'
    done = zygote.run(tmp_path, online(server.url))
    check(done, '에서 3초 동안 답이 없음). 오프라인으로 기록하니')
    assert only_offline(tmp_path) and len(logged(tmp_path)) == 13


def test_server_silent_after_the_first_answer(zygote, server, tmp_path, check):
    server.mode = 'half'
    env = online(server.url) | {'WANDB_INIT_TIMEOUT': '2'}
    done = zygote.run(tmp_path, env)
    check(done, 'W&B를 online 방식으로 시작하지 못했습니다(CommError')
    assert only_offline(tmp_path) and len(logged(tmp_path)) == 13


def test_server_silent_at_the_end(zygote, server, tmp_path, check):
    options = {'checkpoint': True, 'logger': {'log_model': True}}
    silence = {'end': f'{server.url}/mode/silent'}
    done = zygote.run(tmp_path, online(server.url), **options, **silence)
    check(
        done, '올리기를 그만둡니다. 나중에 올리세요: wandb sync --include-online wandb/'
    )
    server.mode = 'ok'
    server.runs.clear()
    sync(zygote, server, done['where'], tmp_path)
    [run] = server.runs.values()
    assert len(run.history) == 13 and run.exit_codes == [0]


def test_wrong_key(zygote, server, tmp_path, check):
    server.mode = 'wrong key'
    done = zygote.run(tmp_path, online(server.url))
    check(done, '(API 키가 틀림. 고치려면 wandb login --relogin). 오프라인으로')
    assert only_offline(tmp_path) and len(logged(tmp_path)) == 13


def test_wandb_core_killed(zygote, server, tmp_path, check):
    done = zygote.run(tmp_path, online(server.url), kill=True)
    check(done, 'W&B 기록이 실패해 학습만 계속합니다(')
    assert done['where'].startswith('wandb sync --include-online wandb/run-')


def test_disk_fills_up(zygote, tmp_path, full, check):
    done = zygote.run(tmp_path, OFF, fill='full', logger={'save_dir': 'full'})
    check(done, 'W&B 기록이 실패해 뒷부분을 잃었습니다(디스크가 가득 참)')


def test_disk_full_from_the_start(zygote, tmp_path, full, check):
    with pytest.raises(OSError):
        (full / 'filler').write_bytes(bytes(2**21))
    done = zygote.run(tmp_path, OFF, logger={'save_dir': 'full'})
    check(done, 'W&B를 기록할 자리가 full에 없어 학습만 합니다')
    assert runs(full) == []


def test_a_name_server_that_never_answers_costs_no_more(monkeypatch):
    def never(*_, **__):
        time.sleep(3)
        raise loggers.requests.ConnectionError

    monkeypatch.setattr(loggers.requests, 'post', never)
    began = time.monotonic()
    assert '1초 동안 답이 없음' in loggers.server_problem(1)
    assert time.monotonic() - began < 2.5


# 죽은 뒤의 기록


def logged(folder, run_id=None):
    parts = Path(folder, 'wandb').glob('*run-*')
    chosen = run_parts(folder, run_id) if run_id else parts
    return [row for part in chosen for row in logged_rows(part)]


def sync(zygote, server, command, folder):
    assert command.startswith('wandb sync ')
    done = subprocess.run(
        [WANDB, *command.split()[1:]],
        cwd=folder,
        env={**zygote.env, **online(server.url), 'WANDB_ERROR_REPORTING': 'false'},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def kill_after(zygote, seconds, *arguments, **case):  # 죽인 때
    pid = zygote.start(*arguments, **case)
    while not (zygote.folder / 'written').exists():
        time.sleep(0.05)
    time.sleep(seconds)
    [core] = cores(pid)
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    assert zygote.end()['code'] == -signal.SIGKILL
    while core.is_running() and core.status() != psutil.STATUS_ZOMBIE:
        assert time.time() < killed + 10, 'wandb-core가 아직 적고 있다'
        time.sleep(0.05)
    return killed


def rows(first, last, run_id):
    named = {'save_dir': '.', 'id': run_id, 'resume': 'allow'}
    return {'rows': [first, last], 'logger': named}


def test_offline_run_survives_kill_9_and_goes_on_as_one(zygote, server, tmp_path):
    killed = kill_after(zygote, 3, tmp_path, OFF, **rows(0, 10**6, 'first'))
    found = logged(tmp_path)
    lost = killed - found[-1]['time']
    assert 0 <= lost < 2, f'{lost:.1f}초를 잃었다'
    assert [row[STEP] for row in found] == list(range(len(found)))
    [part] = run_parts(tmp_path, 'first')
    shown = [WANDB, 'leet', 'inspect', '--summary', '--json', str(part)]
    summary = subprocess.run(shown, capture_output=True, text=True, env=zygote.env)
    assert f'"{STEP}":{len(found) - 1}' in summary.stdout.replace(' ', '')

    again = len(found) - 20  # 체크포인트가 있던 걸음
    done = zygote.run(tmp_path, OFF, **rows(again, again + 40, 'first'))
    first, second = run_parts(tmp_path, 'first')
    names = f'wandb/{first.name} wandb/{second.name}'
    assert done['where'] == done['places']['W&B'] == f'wandb sync {names}'
    steps = [row[STEP] for row in logged(tmp_path, 'first')]
    assert steps == list(range(again + 40))  # 빠진 걸음도, 두 번 적힌 걸음도 없다.

    sync(zygote, server, done['where'], tmp_path)
    [run] = server.runs.values()
    assert run.name == 'first' and server.resumed[-1:] == ['first']
    assert [row[STEP] for row in run.history] == steps
    assert [row['_step'] for row in run.history] == steps


def test_wandb_core_killed_loses_two_seconds_at_most(zygote, tmp_path):
    zygote.run(tmp_path, OFF, kill_after=40, **rows(0, 10**6, 'core'))
    killed = float((tmp_path / 'killed').read_text())
    lost = killed - logged(tmp_path)[-1]['time']
    assert 0 <= lost < 2, f'{lost:.1f}초를 잃었다'


def test_online_run_goes_on_and_sends_what_the_server_missed(zygote, server, tmp_path):
    kill_after(zygote, 2, tmp_path, online(server.url), **rows(0, 10**6, 'second'))
    found = len(logged(tmp_path))
    on_server = len(server.runs['second'].history)
    assert on_server < found  # 보내는 사이가 15초라 서버에는 아직 없다.
    case = rows(found - 10, found + 10, 'second')
    done = zygote.run(tmp_path, online(server.url), **case)
    assert done['where'].startswith(server.url)
    run = server.runs['second']
    assert [row[STEP] for row in run.history] == list(range(found + 10))
    assert run.exit_codes == [0]


# 비밀


SECRETS = {
    'WANDB_API_KEY': 'planted-key-' + 'a7' * 20,
    'HF_TOKEN': 'hf_' + 'b8' * 17,
    'netrc': 'c9' * 20,
    'mirror': 'd0secret',
}


def contents(path, name=''):  # 파일과, 그 안에 눌러 담긴 것의 (이름, 내용)
    "zip(체크포인트도 zip이다), gzip, tar의 안까지"
    content = path.read_bytes() if isinstance(path, Path) else path
    yield name, content
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as members:
            for member in members.namelist():
                yield from contents(members.read(member), f'{name}/{member}')
    elif content[:2] == b'\x1f\x8b':
        yield from contents(gzip.decompress(content), f'{name}/gzip')
    elif name.endswith('.wandb'):
        for number, record in enumerate(loggers._records(path)):
            yield f'{name}/{number}', record


def leaks(folder):  # 비밀이 든 곳
    found = set()
    for path in folder.rglob('*'):
        if path.is_file():
            for name, content in contents(path, str(path.relative_to(folder))):
                for kind, secret in SECRETS.items():
                    if secret.encode() in content:
                        found.add((kind, name))
    return found


def test_a_planted_secret_is_found(tmp_path):
    (tmp_path / 'a.gz').write_bytes(gzip.compress(SECRETS['netrc'].encode()))
    with zipfile.ZipFile(tmp_path / 'a.ckpt', 'w', zipfile.ZIP_DEFLATED) as members:
        members.writestr('data.pkl', SECRETS['HF_TOKEN'])
    assert leaks(tmp_path) == {('netrc', 'a.gz/gzip'), ('HF_TOKEN', 'a.ckpt/data.pkl')}


def leaks_of_a_fit(zygote, tmp_path, *options):
    login = f'machine api.wandb.ai login user password {SECRETS["netrc"]}'
    (tmp_path / 'netrc').write_text(login)
    keys = {name: SECRETS[name] for name in ('WANDB_API_KEY', 'HF_TOKEN')}
    env = {'WANDB_MODE': 'offline', 'NETRC': str(tmp_path / 'netrc'), **keys}
    limits = '--run_dir run --trainer.max_epochs 1 --trainer.limit_train_batches 2'
    command = ['fit', '--data.source', 'toy', *limits.split(), *options]
    done = zygote.run(tmp_path, env, argv=command)
    assert done['code'] == 0, done['stderr']
    run = tmp_path / 'run'
    assert list(run.glob('wandb/offline-run-*/*.wandb')) and list(run.rglob('*.ckpt'))
    return leaks(run)


def test_no_key_in_the_run_folder(zygote, tmp_path):
    assert leaks_of_a_fit(zygote, tmp_path) == set()


def test_a_mirror_with_a_password_is_refused_before_anything_is_written():
    from cifar_lit.parts.files import InputError
    from cifar_lit.parts.sources import find_source

    mirror = f'https://user:{SECRETS["mirror"]}@mirror.example/cifar-10.tar.gz'
    with pytest.raises(InputError, match='netrc') as refused:
        find_source('cifar10', mirror=mirror)
    assert SECRETS['mirror'] not in str(refused.value)
