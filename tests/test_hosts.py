"""호스트 둘: 하나를 죽이고, 돌려보내고, 끊는다.

호스트는 이 컴퓨터의 네트워크 네임스페이스 둘이다. 저마다 주소가 있고, 죽이면 그 안의
프로세스가 모두 사라지고, 선을 내리면 살아 있어도 닿지 않는다. 폴더는 함께 쓴다.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from given import ENV

BIN = Path(sys.executable).parent
NAMES = ('h1', 'h2')
ADDRESSES = dict(zip(NAMES, ('10.77.0.1', '10.77.0.2')))
FIT = (
    'fit --data.source toy --data.val_size 100 --data.flip random '
    '--model.learning_rate 1e-5 --trainer.accelerator cpu --trainer.max_epochs 50 '
    '--trainer.precision 32-true --trainer.log_every_n_steps 1 --last.steps 5'
).split()
PATIENCE = '--trainer.strategy DDPStrategy --trainer.strategy.timeout 0:00:15'.split()


def ip(*words, check=True):
    return subprocess.run(['ip', *words], check=check, capture_output=True, text=True)


def space(name):
    return f'cifar-{os.getpid()}-{name}'


def kill(name):
    "호스트의 프로세스를 모두 한꺼번에 죽인다."
    for number in ip('netns', 'pids', space(name), check=False).stdout.split():
        os.kill(int(number), signal.SIGKILL)


@pytest.fixture
def hosts():
    "주소가 하나씩 있고 서로 이어진 네임스페이스 둘"
    if (
        not shutil.which('ip')
        or ip('netns', 'add', space('h1'), check=False).returncode
    ):
        pytest.skip('네트워크 네임스페이스를 만들 수 없습니다(root와 iproute2가 필요).')
    ip('netns', 'add', space('h2'))
    one, two = map(space, NAMES)
    ip(*f'link add v1 netns {one} type veth peer name v2 netns {two}'.split())
    for name, address in ADDRESSES.items():
        at = ('-n', space(name))
        ip(*at, *f'addr add {address}/24 dev v{name[1]}'.split())
        for device in ('lo', f'v{name[1]}'):
            ip(*at, 'link', 'set', device, 'up')
    yield
    for name in NAMES:
        kill(name)
        ip('netns', 'del', space(name))


def agent(name, place, log, nodes='1:2', seconds=60):
    "호스트에서 `torchrun`을 띄운다."
    conf = f'join_timeout={seconds},last_call_timeout=3,is_host={int(name == "h1")}'
    options = (
        f'--nnodes {nodes} --nproc_per_node 1 --max-restarts 9 --rdzv-backend c10d '
        f'--rdzv-id job7 --rdzv-endpoint {ADDRESSES["h1"]}:29400 '
        f'--local-addr {ADDRESSES[name]} --rdzv-conf {conf}'
    ).split()
    words = [BIN / 'torchrun', *options, BIN / 'cifar-lit', *FIT, *PATIENCE]
    variables = {**ENV, 'WANDB_MODE': 'disabled', 'OMP_NUM_THREADS': '1'}
    variables |= {'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1'}
    variables |= {'GLOO_SOCKET_IFNAME': f'v{name[1]}'}
    inside = ['ip', 'netns', 'exec', space(name), *words, '--data.batch_size', '16']
    with open(place / log, 'w') as file:
        return subprocess.Popen(
            inside, cwd=place, env=variables, stdout=file, stderr=subprocess.STDOUT
        )


def wait_for(happened, log, seconds=120):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, log.read_text()[-3000:]
        time.sleep(0.2)


def steps_of(place):
    "지금까지 기록된 스텝의 표"
    tables = [pd.read_csv(path) for path in place.glob('runs/*/metrics.csv')]
    if not tables or 'train_loss_step' not in tables[0]:
        return pd.DataFrame({'step': [], 'train_loss_step': []})
    return tables[0].dropna(subset='train_loss_step')


def test_a_host_dies_returns_and_is_cut_off(hosts, tmp_path):
    log = tmp_path / 'h1.log'
    told = lambda words: lambda: words in log.read_text()  # noqa: E731
    agent('h1', tmp_path, 'h1.log')
    agent('h2', tmp_path, 'h2.log')
    wait_for(lambda: len(steps_of(tmp_path)) > 12, log)
    kill('h2')
    wait_for(told('16장씩 2개에서 32장씩 1개로'), log)
    alone = len(steps_of(tmp_path))
    wait_for(lambda: len(steps_of(tmp_path)) > alone + 12, log)
    agent('h2', tmp_path, 'h2-again.log')
    wait_for(told('32장씩 1개에서 16장씩 2개로'), log)
    together = len(steps_of(tmp_path))
    wait_for(lambda: len(steps_of(tmp_path)) > together + 12, log)
    count = log.read_text().count('16장씩 2개에서 32장씩 1개로')
    ip('-n', space('h2'), 'link', 'set', 'v2', 'down')
    wait_for(lambda: log.read_text().count('32장씩 1개로') > count, log)
    cut = len(steps_of(tmp_path))
    wait_for(lambda: len(steps_of(tmp_path)) > cut + 12, log)
    kill('h1')
    assert len(list(tmp_path.glob('runs/*'))) == 1
    check_like_one_process(steps_of(tmp_path), tmp_path)


def check_like_one_process(found, place):
    "한 프로세스가 멈추지 않고 같은 전체 배치로 한 것과 손실이 같다."
    assert found['step'].tolist() == list(range(len(found)))
    limit = ['--trainer.max_steps', str(len(found)), '--trainer.val_check_interval']
    words = [BIN / 'cifar-lit', *FIT, *limit, '1.0', '--run_dir', 'one']
    variables = {**ENV, 'WANDB_MODE': 'disabled', 'OMP_NUM_THREADS': '2'}
    subprocess.run(words, cwd=place, env=variables, capture_output=True)
    whole = pd.read_csv(place / 'one/metrics.csv').dropna(subset='train_loss_step')
    losses = [table['train_loss_step'].to_numpy() for table in (found, whole)]
    assert len(losses[1]) == len(losses[0])
    assert abs(losses[0] - losses[1]).max() < 1e-4


def test_nobody_comes(hosts, tmp_path):
    alone = agent('h1', tmp_path, 'h1.log', nodes='2', seconds=5)
    assert alone.wait(120) != 0
    assert 'RendezvousTimeoutError' in (tmp_path / 'h1.log').read_text()
