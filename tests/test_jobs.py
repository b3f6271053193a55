"""jobs/의 작업 파일: 그 자리에서 만든 SLURM에서 돌리고, SkyPilot의 검사에 보인다.

SLURM과 SkyPilot은 `make jobs`가 `.venv` 안에 둔다. 없으면 돌지 않는다.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import yaml
from given import ENV, ROOT

BIN = Path(sys.executable).parent
SLURM = ROOT / '.venv/slurm/usr'
SKY = ROOT / '.venv/sky/bin'
BATCH = ROOT / 'jobs/slurm.sh'
TASK = ROOT / 'jobs/sky.yaml'
QUIET = {'WANDB_MODE': 'disabled', 'OMP_NUM_THREADS': '1'}
FIT = (
    '--data.source toy --data.batch_size 32 --data.val_size 100 --data.flip random '
    '--trainer.accelerator cpu --trainer.precision 32-true --trainer.max_epochs 2 '
    '--trainer.limit_train_batches 60 --trainer.log_every_n_steps 1 --last.steps 5'
)
STEPS = 120


def wait_for(happened, told, seconds=240):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, told()
        time.sleep(0.1)


def processes(words, **variables):
    "명령에 `words`가, 환경에 `variables`가 있는 프로세스의 번호"
    wanted = {f'{name}={value}'.encode() for name, value in variables.items()}
    found = []
    for place in Path('/proc').glob('[0-9]*'):
        try:
            command = (place / 'cmdline').read_bytes()
            environment = (place / 'environ').read_bytes().split(b'\0')
        except OSError:  # 그새 끝났거나 남의 것이다.
            continue
        if words.encode() in command and wanted <= set(environment):
            found.append(int(place.name))
    return found


def kill(numbers):
    for number in numbers:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


# SLURM


class Cluster:
    "호스트가 둘인 SLURM. 작업은 `place`에서 돈다."

    def __init__(self, place):
        self.place = place
        libraries = next(SLURM.glob('lib/*/slurm-wlm'))
        paths = [BIN, SLURM / 'bin', SLURM / 'sbin', ENV['PATH']]
        self.env = {
            **ENV,
            **QUIET,
            'PATH': os.pathsep.join(map(str, paths)),
            'LD_LIBRARY_PATH': f'{libraries.parent}:{libraries}',
            'SLURM_CONF': str(place / 'slurm/slurm.conf'),
            'MASTER_ADDR': '127.0.0.1',  # node1은 지어낸 이름이다.
        }
        (place / 'slurm').mkdir()
        self.process = subprocess.Popen(
            [ROOT / 'tests/cluster.sh', place / 'slurm', libraries],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == 'ready\n'

    def call(self, words, check=True, **variables):
        done = subprocess.run(
            shlex.split(words),
            cwd=self.place,
            env=self.env | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    def submit(self, **variables):
        "작업의 번호"
        words = f'sbatch --parsable {BATCH} {FIT}'
        return self.call(words, **variables).stdout.strip()

    def log(self, job):
        return (self.place / f'slurm-{job}.log').read_text()

    def state(self, job):
        return self.call(f'squeue --states=all -h -j {job} -o %T').stdout.strip()

    def wait_until_it_saves(self, job):
        "첫 에포크의 가운데"
        last = self.place / f'runs/slurm-{job}/checkpoints/last.ckpt'
        wait_for(last.exists, lambda: self.log(job))

    def finish(self, job):
        "끝난 작업의 기록"
        ended = ('COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT', 'NODE_FAIL')
        wait_for(lambda: self.state(job) in ended, lambda: self.log(job))
        assert self.state(job) == 'COMPLETED', self.log(job)
        return self.log(job)


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    if not SLURM.exists():
        pytest.skip('SLURM이 없습니다. make jobs로 돌리면 설치됩니다.')
    cluster = Cluster(tmp_path_factory.mktemp('jobs'))
    yield cluster
    cluster.process.communicate(timeout=60)


@pytest.fixture(scope='module')
def whole(cluster):
    "멈추지 않은 실행의 metrics.csv"
    told = cluster.finish(cluster.submit(RUN='runs/whole'))
    assert '이어서' not in told and '0-1: node[1-2]' in told
    return (cluster.place / 'runs/whole/metrics.csv').read_text()


def check_went_on(cluster, job, attempt, whole):
    "도중에 이어서 했고, 멈추지 않은 실행과 같다."
    told = cluster.finish(job)
    assert f' {attempt}: node[1-2]' in told
    steps = [line.split()[1] for line in told.splitlines() if '다음부터 이어서' in line]
    assert len(steps) == 1 and 0 < int(steps[0]) < STEPS, told
    run = cluster.place / f'runs/slurm-{job}'
    assert (run / 'metrics.csv').read_text() == whole


def test_slurm_accepts_the_job(cluster):
    done = cluster.call(f'sbatch --test-only {BATCH}')
    assert 'using 2 processors on nodes node[1-2]' in done.stderr


@pytest.mark.parametrize(
    'line, why',
    [
        ('--many=2', 'unrecognized option'),
        ('--nodes=3', 'configuration is not available'),
        ('--time=soon', 'Invalid --time'),
    ],
)
def test_slurm_refuses_a_wrong_job(cluster, tmp_path, line, why):
    wrong = tmp_path / 'wrong.sh'
    wrong.write_text(BATCH.read_text().replace('#SBATCH --requeue', f'#SBATCH {line}'))
    done = cluster.call(f'sbatch --test-only {wrong}', check=False)
    assert done.returncode != 0 and why in done.stderr


def test_a_requeued_job_goes_on(cluster, whole):
    job = cluster.submit()
    cluster.wait_until_it_saves(job)
    cluster.call(f'scontrol requeue {job}')
    check_went_on(cluster, job, '1-1', whole)


def test_a_job_whose_time_is_up_requeues_itself(cluster, whole):
    job = cluster.submit()
    cluster.wait_until_it_saves(job)
    cluster.call(f'scancel --batch --signal=USR1 {job}')
    check_went_on(cluster, job, '1-1', whole)


def test_a_job_goes_on_after_a_process_dies(cluster, whole):
    job = cluster.submit()
    cluster.wait_until_it_saves(job)
    ranks = processes('bin/cifar-lit', SLURM_JOB_ID=job, SLURM_PROCID=1)
    assert ranks
    kill(ranks)
    check_went_on(cluster, job, '0-2', whole)


# SkyPilot

CHECK = """
import sys
import sky
from sky.server import plugins
from sky.utils import annotations

annotations.is_on_api_server = True  # 서버처럼 job_recovery의 이름도 본다.
plugins.load_plugins(plugins.ExtensionContext())
for path in sys.argv[1:]:
    try:
        sky.Task.from_yaml(path)
        print('ok')
    except Exception as error:
        print(' '.join(str(error).split()))
"""
WRONG = {
    'num_nodes:': ('num_node:', "Instead of 'num_node', did you mean 'num_nodes'?"),
    'mode:': ('mood:', "Instead of 'mood', did you mean 'mode'?"),
    'max_restarts_on_errors': ('max_restarts', "('max_restarts' was unexpected)"),
    'use_spot: true': ('use_spot: often', "'often' is not of type 'boolean'"),
    'L4:1': ('L4:one', "Found: 'L4:one'"),
}


@pytest.fixture
def sky():
    if not (SKY / 'sky').exists():
        pytest.skip('SkyPilot이 없습니다. make jobs로 돌리면 설치됩니다.')


def test_sky_accepts_the_task_and_refuses_wrong_ones(sky, tmp_path):
    paths = [TASK]
    for k, (right, (wrong, _)) in enumerate(WRONG.items()):
        paths.append(tmp_path / f'{k}.yaml')
        paths[-1].write_text(TASK.read_text().replace(right, wrong, 1))
    apart = {'HOME': str(tmp_path), 'SKYPILOT_DISABLE_USAGE_COLLECTION': '1'}
    done = subprocess.run(
        [SKY / 'python', '-c', CHECK, *paths],
        cwd=ROOT,
        env=ENV | apart | {'IS_SKYPILOT_SERVER': 'true'},
        capture_output=True,
        text=True,
    )
    told = done.stdout.splitlines()
    assert told[:1] == ['ok'], done.stdout + done.stderr
    for (_, why), words in zip(WRONG.values(), told[1:], strict=True):
        assert why in words


@pytest.mark.parametrize('name', ['setup', 'run'])
def test_the_shell_of_the_task_is_whole(sky, name):
    script = yaml.safe_load(TASK.read_text())[name]
    for text, fine in ((script, True), (f'{script}"', False)):
        done = subprocess.run(['bash', '-n'], input=text, text=True)
        assert (done.returncode == 0) == fine


@pytest.fixture
def task(sky):
    "SkyPilot이 지어 주는 것과 같은 이름. 끝나면 그 프로세스를 모두 죽인다."
    name = f'sky-managed-{uuid.uuid4().hex[:8]}_cifar-lit_1-0'
    yield name
    kill(processes('', SKYPILOT_TASK_ID=name))


def play(name, place, port):
    "SkyPilot처럼 `run`을 두 호스트(모두 이 컴퓨터)에서 부른다."
    run = yaml.safe_load(TASK.read_text())['run']
    run = run.replace('/runs/', f'{place}/').replace(':29500', f':{port}')
    given = {
        'PATH': f'{BIN}:{ENV["PATH"]}',
        'OPTIONS': FIT,
        'SKYPILOT_TASK_ID': name,
        'SKYPILOT_NODE_IPS': '127.0.0.1\n127.0.0.1',
        'SKYPILOT_NUM_NODES': '2',
        'SKYPILOT_NUM_GPUS_PER_NODE': '1',
    }
    with open(place / 'log', 'a') as file:
        outputs = {'stdout': file, 'stderr': subprocess.STDOUT}
        for rank in '01':
            variables = ENV | QUIET | given | {'SKYPILOT_NODE_RANK': rank}
            yield subprocess.Popen(['bash', '-c', run], env=variables, **outputs)


def test_new_hosts_go_on_with_the_task(task, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as held:
        port = held.getsockname()[1]
    lost = [*play(task, tmp_path, port)]
    last = tmp_path / task / 'checkpoints/last.ckpt'
    wait_for(last.exists, (tmp_path / 'log').read_text)
    kill(processes('', SKYPILOT_TASK_ID=task))
    assert [host.wait(10) for host in lost] == [-signal.SIGKILL] * 2
    codes = [host.wait(240) for host in [*play(task, tmp_path, port)]]
    told = (tmp_path / 'log').read_text()
    assert codes == [0, 0] and told.count('다음부터 이어서') == 1, told
    rows = pd.read_csv(tmp_path / task / 'metrics.csv')
    assert rows.dropna(subset='train_loss_step')['step'].tolist() == list(range(STEPS))
