"""진짜 학습 명령을 아무 때나 죽이고 이어서 한 다음, 멈추지 않은 것과 비트까지 비교한다.

    python tests/torture.py --kills 200

라이브러리를 한 번만 불러오고 명령마다 갈라져 나가므로(fork) 죽이는 데 1초쯤 걸린다.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # 갈라져 나간 OpenMP는 멈춘다.
os.environ['WANDB_SILENT'] = 'true'

import torch
from torch import nn

import cifar_lit.parts.cli
from cifar_lit.parts import files
from cifar_lit.parts.checkpoints import read_checkpoint
from cifar_lit.parts.files import InputError

sys.path.insert(0, str(Path(__file__).parent))

from torture_table import table


class DropoutNet(nn.Sequential):
    "드롭아웃이 있는 작은 신경망"

    def __init__(self):
        layers = nn.Flatten(), nn.Dropout(0.3), nn.Linear(3072, 400), nn.ReLU()
        super().__init__(*layers, nn.Dropout(0.5), nn.Linear(400, 3))


SMALL = (
    '--data.source {photos} --data.batch_size 4 --trainer.max_epochs 2 '
    '--trainer.log_every_n_steps 2 --last.steps 3 --examples.num_samples 2'
)
RECIPES = {
    'default': '',
    'augmented and averaged, 2 workers': '--data.flip random --data.crop 4 '
    '--data.cutout 8 --data.num_workers 2 '
    '--trainer.callbacks+=EMAWeightAveraging --trainer.callbacks.decay 0.8',
    'dropout, 1 worker': '--model.net torture.DropoutNet --data.num_workers 1',
    'quick': '--recipe quick --model.widths [8,8,8] --data.batch_size 4 '
    '--trainer.max_epochs 2 --trainer.limit_train_batches 10',
    'fast': '--recipe fast --model.widths [8,8,8] --data.batch_size 4 '
    '--data.val_size 6 --trainer.max_epochs 2',
}


def words(recipe, photos, run):
    "학습 명령의 인자"
    small, more = SMALL.format(photos=photos), RECIPES[recipe]
    return ['fit', *small.split(), *more.split(), '--run_dir', str(run)]


# ---------------------------------------------------------------- 갈라져 나간 쪽


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class Half:
    "얼마쯤 쓰다가 죽는 파일"

    def __init__(self, file, left):
        self.file, self.left = file, left

    def write(self, data):
        size = len(memoryview(data))
        self.file.write(memoryview(data)[: self.left])
        self.left -= size
        if self.left <= 0:
            self.file.flush()
            die()
        return size

    def __getattr__(self, name):
        return getattr(self.file, name)


STAGES = ('writing', 'before fsync', 'before rename', 'after rename')


def die_in_save(number, stage):
    "체크포인트를 `number`번째로 저장하다가 `stage`에서 죽는다."
    from cifar_lit.parts.saves import SafeCheckpointIO

    saves = {'count': 0}
    save_checkpoint, save = SafeCheckpointIO.save_checkpoint, torch.save

    def counted(*args, **kwargs):
        saves['count'] += 1
        return save_checkpoint(*args, **kwargs)

    def at(when, function):
        def either(*args):
            if saves['count'] == number and stage == when:
                die()
            return function(*args)

        return either

    def half(checkpoint, file):
        now = saves['count'] == number and stage == 'writing'
        return save(checkpoint, Half(file, 5000) if now else file)

    tell_start()
    SafeCheckpointIO.save_checkpoint, torch.save = counted, half
    files.os.fsync = at('before fsync', os.fsync)
    files.os.replace = at('before rename', os.replace)
    files._sync_folder = at('after rename', files._sync_folder)


def tell_start(pipe=None):
    "학습이 시작되면 때를 남기고 부모에게 알린다."
    from cifar_lit.parts.resume import LastCheckpoint

    on_train_start = LastCheckpoint.on_train_start

    def told(self, trainer, pl_module):
        on_train_start(self, trainer, pl_module)
        Path('started').touch()
        if pipe:
            os.write(pipe, b'!')

    LastCheckpoint.on_train_start = told


def run_child(args, place, prepare, variables):
    "갈라져 나가 명령을 돌린다. 프로세스 번호"
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        os.setsid()
        os.chdir(place)
        log = os.open('log.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(variables)
        tempfile.tempdir = None
        sys.argv = ['cifar-lit', *args]
        prepare()
        cifar_lit.parts.cli.main(args)
        code = 0
    except SystemExit as stopped:
        code = stopped.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


# ---------------------------------------------------------------- 죽이는 쪽


class Bench:
    "실행 하나를 두는 곳: 폴더, 임시 폴더, 환경 변수"

    def __init__(self, place, recipe, photos, offline, other_disk):
        self.place, self.recipe, self.photos = place, recipe, photos
        place.mkdir(parents=True)
        near = place / 'tmp'
        near.mkdir()
        self.temporary = Path(tempfile.mkdtemp(dir='/dev/shm')) if other_disk else near
        mode = 'offline' if offline else 'disabled'
        self.variables = {'TMPDIR': str(self.temporary), 'WANDB_MODE': mode}
        self.run = place / 'run'

    def args(self):
        if (self.run / 'config.yaml').is_file():
            return ['resume', str(self.run)]
        return words(self.recipe, self.photos, self.run)

    def start(self, prepare=lambda: None):
        if (self.run / 'run.json').is_file() and self.args()[0] != 'resume':
            shutil.rmtree(self.run)  # 설정을 쓰기 전에 죽었다.
        return run_child(self.args(), self.place, prepare, self.variables)

    def log(self):
        path = self.place / 'log.txt'
        return path.read_text(errors='replace') if path.exists() else ''

    def close(self):
        if self.temporary.parent == Path('/dev/shm'):
            shutil.rmtree(self.temporary)


def wait(number):
    "종료 코드. 신호로 죽었으면 음수"
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def lost_seconds(bench, at):
    "`at`에 죽어서 다시 배워야 하는 초. 학습을 시작하지 않았으면 0"
    safe = [bench.place / 'started', *bench.run.glob('checkpoints/*.ckpt')]
    times = [path.stat().st_mtime for path in safe if path.exists()]
    return max(0.0, at - max(times, default=at))


def torn(bench):
    "제 이름을 달고 있지만 읽을 수 없는 체크포인트와, 임시 폴더에 남은 것"
    faults = []
    for path in bench.run.glob('checkpoints/*.ckpt'):
        try:
            read_checkpoint(path)
        except InputError as error:
            faults.append(str(error))
    left = [path for path in bench.temporary.rglob('*') if path.is_file()]
    return faults + [f'TMPDIR: {path}' for path in left if path.stat().st_size > 5000]


def send(bench, number, seconds):
    "학습이 시작되고 `seconds`초 뒤에 신호를 보낸다. 종료 코드와 보낸 시각"
    ours, theirs = os.pipe()
    child = bench.start(lambda: tell_start(theirs))
    os.close(theirs)
    os.read(ours, 1)  # 학습을 시작했거나 끝났다.
    os.close(ours)
    time.sleep(seconds)
    sent = time.time()
    try:
        os.killpg(child, number)
    except ProcessLookupError:
        pass  # 벌써 끝났다. 종료 코드가 말해 준다.
    return wait(child), sent


def kill(bench, dice):
    code, sent = send(bench, signal.SIGKILL, dice.uniform(0, 0.5))
    return [], code == -9, sent


def kill_in_save(bench, dice):
    number, stage = dice.randint(1, 4), dice.choice(STAGES)
    code = wait(bench.start(lambda: die_in_save(number, stage)))
    return [], code == -9, time.time()


def ask(bench, dice):
    number = dice.choice([signal.SIGTERM, signal.SIGINT])
    code, sent = send(bench, number, dice.uniform(0, 0.3))
    if code in (0, -number):  # 다 끝난 뒤에 왔다.
        return [], False, sent
    faults = [] if code == 128 + number else [f'{number.name}: 종료 코드 {code}']
    if f'cifar-lit resume {bench.run}' not in bench.log():
        faults.append('이어서 하는 명령을 말하지 않음')
    return faults, True, sent


FAULTS = {
    'kill -9': kill,
    'kill -9 inside a save': kill_in_save,
    'SIGTERM, Ctrl+C': ask,
}


def fill_disk(folder, photos, reference, kib):
    "`kib` KiB의 디스크에서 학습하다 디스크가 차고, 자리를 만들어 이어서 한 것"
    recipe = 'default'
    bench = Bench(folder / f'disk-{kib}', recipe, photos, False, False)
    disk = bench.place / 'disk'
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={kib}k tmpfs'.split()
    if subprocess.run([*mount, disk], capture_output=True).returncode:
        return None  # 루트가 아니면 작은 디스크를 만들 수 없다.
    try:
        bench.run = disk / 'run'
        code = wait(bench.start(tell_start))
        problems = torn(bench)
        if (
            code != 1
            or 'Traceback' in bench.log()
            or '쓸 수 없습니다' not in bench.log()
        ):
            problems.append(f'종료 코드 {code}: {bench.log()[-300:]}')
        grow = 'mount -o remount,size=100m'.split()
        subprocess.run([*grow, disk], check=True)
        code = wait(bench.start())
        problems += [f'종료 코드 {code}'] if code else differences(bench.run, reference)
    finally:
        subprocess.run(['umount', disk], check=True)
    row = {'fault': 'full disk', 'recipe': recipe, 'happened': True, 'lost': None}
    return {**row, 'problems': problems}


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        alike = one.keys() == other.keys()
        return alike and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


PARTS = ('state_dict', 'optimizer_states', 'lr_schedulers', 'loops', 'global_step')
AVERAGED = 'current_model_state', 'averaging_state'


def differences(run, reference):
    "멈추지 않은 실행과 다른 것"
    found = []
    for name in ('last.ckpt', 'best.ckpt'):
        path = f'checkpoints/{name}'
        one, other = (read_checkpoint(at / path) for at in (run, reference))
        parts = [*PARTS, *(part for part in AVERAGED if part in other)]
        found += [
            f'{name}: {part}' for part in parts if not same(one[part], other[part])
        ]
    texts = [(at / 'metrics.csv').read_text() for at in (run, reference)]
    found += [] if texts[0] == texts[1] else ['metrics.csv']
    return found + [f'남은 것: {path.name}' for path in run.rglob('*.tmp')]


def survive(bench, reference, dice, plan):
    "`plan`의 일을 차례로 당하고 끝까지 간 실행. 일마다 한 줄"
    rows = []
    for fault in plan:
        faults, happened, at = FAULTS[fault](bench, dice)
        rows.append(
            {
                'fault': fault,
                'recipe': bench.recipe,
                'happened': happened,
                'lost': lost_seconds(bench, at) if happened else None,
                'problems': faults + torn(bench),
            }
        )
    code = wait(bench.start())
    problems = [f'이어서 하기: 종료 코드 {code}'] if code else []
    problems += torn(bench) if code else differences(bench.run, reference)
    for row in rows:
        row['problems'] = row['problems'] + problems
    return rows


DISKS = 8, 1000, 6000, 16_000  # KiB. 시작, 첫 저장의 앞과 중간, 첫 저장의 뒤에 찬다.


def whole_run(folder, recipe, photos):
    "한 번도 멈추지 않은 실행의 폴더"
    name = recipe.replace(',', '').replace(' ', '-')
    whole = Bench(folder / name, recipe, photos, False, False)
    assert wait(whole.start()) == 0, whole.log()
    return whole.run


def torture(folder, kills, seed, offline_share=0.1):
    "일마다 한 줄의 목록"
    from given import toy_album

    dice, rows = random.Random(seed), []
    photos = toy_album(folder / 'photos')
    references = {}
    for kib in DISKS:
        if 'default' not in references:
            references['default'] = whole_run(folder, 'default', photos)
        rows += filter(None, [fill_disk(folder, photos, references['default'], kib)])
    for number in itertools.count():
        if sum(row['happened'] for row in rows) >= kills:
            return rows
        recipe = list(RECIPES)[number % len(RECIPES)]
        if recipe not in references:
            references[recipe] = whole_run(folder, recipe, photos)
        place = folder / f'{number:04}'
        offline = dice.random() < offline_share
        bench = Bench(place, recipe, photos, offline, other_disk=number % 2)
        plan = [*FAULTS, 'kill -9 inside a save']
        dice.shuffle(plan)
        made = survive(bench, references[recipe], dice, plan)
        rows += made
        bench.close()
        if not any(row['problems'] for row in made):
            shutil.rmtree(place)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path, help='줄마다의 기록을 쓸 파일')
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix='cifar-lit-torture-'))
    began = time.time()
    rows = torture(folder, given.kills, given.seed)
    print(table(rows))
    print(f'{time.time() - began:.0f}초, --seed {given.seed}')
    if given.json:
        given.json.write_text(json.dumps(rows, ensure_ascii=False, indent=1))
    bad = [row for row in rows if row['problems']]
    for row in bad:
        print(row)
    if bad:
        sys.exit(f'살아남지 못한 것 {len(bad)}개. 남긴 것: {folder}')
    shutil.rmtree(folder)


if __name__ == '__main__':
    main()
