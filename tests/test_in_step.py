"""노트북, 내보낸 라이브러리, README, 벤치마크의 숫자가 서로 맞는지 본다."""

import ast
import configparser
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import torch
from scipy.stats import ttest_ind
from torch.utils.flop_counter import FlopCounterMode
from torture_table import table

from cifar_lit.parts.commands import HELP
from cifar_lit.parts.nets import FastNet
from cifar_lit.parts.recipes import read_recipe

ROOT = Path(__file__).parent.parent
LIBRARY, NBS = ROOT / 'cifar_lit', ROOT / 'nbs'
NOTEBOOKS = sorted(NBS.glob('*.ipynb')) + sorted(NBS.glob('parts/*.ipynb'))
LEFTOVERS = ('__pycache__', '.ipynb_checkpoints', 'runs', 'data', 'wandb')
WRONG_WORDS = '훈련|트레이닝|데이터 세트|에폭|씨앗|조리법|견[주줄준줘]'
IGNORED = 'nbval-ignore-output'  # 이 태그가 붙은 셀의 출력은 비교하지 않는다.


def read_settings():
    config = configparser.ConfigParser()
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    return config['DEFAULT']


def run(*arguments, cwd):
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def read_modules(library):
    "모듈의 경로와 내용, 하위 폴더까지"
    paths = library.rglob('*.py')
    return {path.relative_to(library): path.read_bytes() for path in paths}


def test_export_changes_nothing(tmp_path):
    ignore = shutil.ignore_patterns(*LEFTOVERS)
    for name in ('nbs', 'cifar_lit'):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in ('settings.ini', 'README.md', 'setup.py', 'pyproject.toml'):
        shutil.copy(ROOT / name, tmp_path)
    library = tmp_path / 'cifar_lit'
    before = read_modules(library)
    for path in library.rglob('[!_]*.py'):
        path.unlink()
    export = 'from nbdev.doclinks import nbdev_export\nnbdev_export()'
    run('-c', export, cwd=tmp_path)
    after = read_modules(library)
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == []


STORY_OF_PARTS = {'data', 'model'}  # 부품이 불러도 되는 이야기의 모듈
# 명령줄은 콜백도, GPU의 레시피는 06장의 모델도 부른다.
EXCEPTIONS = {'cli': {'callbacks'}, 'record': {'speed'}}


def imported_modules(source, package):
    "`package`에서 부르는 `cifar_lit`의 모듈. 예를 들어 {'data', 'parts.toy'}"
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom):
            continue
        above = package.split('.')[: len(package.split('.')) + 1 - node.level]
        base = [*above, node.module or ''] if node.level else [node.module]
        name = '.'.join(filter(None, base))
        if name == 'cifar_lit.parts':
            found |= {f'parts.{alias.name}' for alias in node.names}
        elif name.startswith('cifar_lit.'):
            found.add(name.removeprefix('cifar_lit.'))
    return found


def find_circle(imports):
    "서로 부르는 모듈. 없으면 빈 목록"
    left = dict(imports)
    while free := [name for name, used in left.items() if not used & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_imports_point_down():
    imports = {}
    for path in LIBRARY.rglob('[!_]*.py'):
        package = 'cifar_lit.parts' if path.parent.name == 'parts' else 'cifar_lit'
        name = f'{package}.{path.stem}'.removeprefix('cifar_lit.')
        imports[name] = imported_modules(path.read_text(encoding='utf-8'), package)
    assert find_circle(imports) == []
    for name, used in imports.items():
        if name.startswith('parts.'):
            story = {module for module in used if not module.startswith('parts.')}
            allowed = STORY_OF_PARTS | EXCEPTIONS.get(path_name(name), set())
            assert story <= allowed, f'{name}이 {story - allowed}을 부른다'


def path_name(module):
    return module.rpartition('.')[2]


def test_imports_are_read_and_circles_found():
    source = 'from .files import x\nfrom ..data import y\nfrom . import runs\n'
    found = imported_modules(source, 'cifar_lit.parts')
    assert found == {'parts.files', 'data', 'parts.runs'}
    assert imported_modules('from cifar_lit.model import z', 'cifar_lit') == {'model'}
    assert find_circle({'a': {'b'}, 'b': {'a'}, 'c': set()}) == ['a', 'b']
    assert find_circle({'a': {'b'}, 'b': set()}) == []


def test_readme_is_the_index(tmp_path):
    options = ['--log-level=ERROR', '--to', 'markdown', '--output', 'README']
    index = NBS / 'index.ipynb'
    run('-m', 'nbconvert', *options, '--output-dir', tmp_path, index, cwd=ROOT)
    assert (tmp_path / 'README.md').read_text() == (ROOT / 'README.md').read_text()


def exported_names(source):
    "모듈의 `__all__`"
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == '__all__':
            return set(ast.literal_eval(statement.value))
    return set()


def shown_code(notebook):
    "본문의 코드와, 내보내지도 감추지도 않은 셀"
    seen = ''
    for cell in notebook.cells:
        if cell.cell_type == 'markdown':
            seen += ' '.join(re.findall('```.*?```|`[^`\n]+`', cell.source, re.S))
        elif not cell.source.startswith('#| '):
            seen += cell.source
    return seen


def test_every_exported_name_is_shown_in_use():
    names, words = set(), set()
    for path in LIBRARY.rglob('*.py'):
        names |= exported_names(path.read_text())
    for path in NOTEBOOKS:
        words |= set(re.findall(r'\w+', shown_code(nbformat.read(path, 4))))
    assert len(names) > 50 and sorted(names - words) == []


def measured(name):
    "벤치마크가 남긴 표본: 이름마다 (초, 정확도, 표본) 목록"
    path = ROOT / f'bench/results/{name}.json'
    found = {}
    for sample in json.loads(path.read_text())['samples']:
        found.setdefault(sample['name'], []).append(sample)
    return found


AVX2, BF16 = 'AVX2, 32-true', 'AVX512, bf16-mixed'  # race를 돌린 컴퓨터
EARLIER = 'fast (11 ep)'  # `fast`의 앞선 설정
BESIDE = 'airbench94_muon (another day)'  # bf16에서 그 옆에서 잰 것
OURS = {AVX2: EARLIER, BF16: 'fast'}
THEIRS = {'airbench94_muon', 'airbench94'}


def raced(where):
    "그 컴퓨터에서 끝까지 돌린 표본: 이름마다 시드의 차례대로"
    found = {}
    for name in (OURS[where], EARLIER, 'airbench94_muon', 'airbench94'):
        samples = measured('race')[name]
        here = [sample for sample in samples if where in sample['machine']]
        if here:
            found[name] = sorted(here, key=lambda sample: sample['repeat'])
    return found


def middle(samples, key='seconds'):
    return statistics.median(sample[key] for sample in samples)


def mean(samples, key):
    return statistics.mean(sample[key] for sample in samples)


def deviation(samples):
    return statistics.stdev(sample['accuracy'] for sample in samples)


def spread(samples):
    return f'{mean(samples, "accuracy"):.1f} ± {deviation(samples):.1f} %'


AIRBENCH = 'https://github.com/KellerJordan/cifar10-airbench'
RACED = {
    'fast': '`cifar-lit tutorial --recipe fast` (06장)',
    'airbench94_muon': f'[airbench94_muon]({AIRBENCH})을 CPU로',
}


def test_readme_figures_are_the_measured_ones():
    text = (ROOT / 'README.md').read_text()
    found = measured('tutorial')
    for samples in found.values():
        assert len(samples) >= 5
        assert f'| {middle(samples):.0f}초 | {spread(samples)} |' in text
    for name, words in RACED.items():
        samples = raced(BF16)[name]
        row = f'| {words} | {mean(samples, "seconds"):,.0f}초 | {spread(samples)} |'
        assert row in text
    assert min(sample['accuracy'] for sample in found['cifar_lit']) >= 52


# 06장의 숫자. 표, 그림의 자료, 글이 모두 표본에서 셈한 것과 같아야 한다.

SPEED = NBS / '06_speed.ipynb'
NOT_IN_THE_CHAPTER = {'torch.optim.Muon'}  # 글에서만 이야기한다.
COMMANDS = {  # 표본의 이름과 그림에서의 이름
    'tutorial': 'tutorial',
    'cifar_lit': 'cifar-lit',
    'quick': 'recipe quick',
}


def prose(path):
    cells = nbformat.read(path, 4).cells
    return '\n'.join(cell.source for cell in cells if cell.cell_type == 'markdown')


def test_speed_tables_are_the_measured_ones():
    found = measured('recipe')
    assert min(len(samples) for samples in found.values()) >= 5
    expected = {
        f'| {name} | {middle(samples):.1f} | {spread(samples)} |'
        for name, samples in found.items()
        if name not in NOT_IN_THE_CHAPTER
    }
    row = r'^\| [^|]+ \| \d+\.\d \| [\d.]+ ± [^|]*\|$'
    assert set(re.findall(row, prose(SPEED), re.M)) == expected
    steps = [f'{1000 * middle(rows):.1f}' for rows in measured('step').values()]
    assert re.findall(r'\| ([\d.]+) ms \|', prose(SPEED)) == steps


def plotted_row(name, samples):
    timed = [sample for sample in samples if 'seconds' in sample]
    commands = [s['command_seconds'] for s in timed if 'command_seconds' in s]
    command = f'{statistics.median(commands):.1f}' if commands else ''
    accuracy = f'{mean(samples, "accuracy"):.1f},{deviation(samples):.1f}'
    return f'{name},{middle(timed):.1f},{command},{accuracy}'


def test_the_plot_shows_the_samples():
    rows = [
        plotted_row(name, samples)
        for name, samples in measured('recipe').items()
        if name not in NOT_IN_THE_CHAPTER
    ]
    commands = measured('tutorial')
    rows += [plotted_row(COMMANDS[name], commands[name]) for name in COMMANDS]
    assert '\n'.join(rows) in SPEED.read_text().replace('\\n",\n    "', '\n')


def gain(after, before):
    "정확도의 차이, %p"
    difference = mean(after, 'accuracy') - mean(before, 'accuracy')
    return f'{abs(difference):.1f} %p'


def times(slow, fast):
    return f'{middle(slow) / middle(fast):.1f}배'


def paired(name, key):
    "`tutorial`과 같은 차례에 잰 것끼리 나눈 비, 작은 것부터"
    found = measured('tutorial')
    pairs = zip(found['tutorial'], found[name], strict=True)
    return sorted(theirs[key] / ours[key] for theirs, ours in pairs)


def step_claims():
    found = measured('step')
    pairs = zip(found['LitModel'], found['loop'], strict=True)
    ratios = sorted(ours['seconds'] / loop['seconds'] for ours, loop in pairs)
    spread_out = f'{ratios[0]:.2f}~{ratios[-1]:.2f}배'
    yield f'손으로 쓴 루프의 {statistics.median(ratios):.2f}배({spread_out})입니다'
    yield '번갈아 일곱 번 잰 것의 중앙값'
    assert len(ratios) == 7


def recipe_claims():
    row = measured('recipe')
    net, small, white = row['FastNet'], row['16 px'], row['whitening']
    cycle = row['Muon + one-cycle']
    yield f'{gain(net, row["ConvNet"])}를 더 맞힙니다'
    yield f'{times(net, row["ConvNet"])} 오래 걸립니다'
    yield f'{gain(net, small)} 내주고 {times(net, small)} 빨라졌습니다'
    yield f'{gain(white, small)} 올랐습니다'
    before, after = deviation(row['ConvNet']), deviation(row['ConvNet + one-cycle'])
    yield f'표준편차 {before:.1f} → {after:.1f}'
    yield f'다시 골랐는데도 {gain(white, row["Adam + one-cycle"])} 낮습니다'
    yield f'설정으로 돌리면 {spread(row["torch.optim.Muon"])}로'
    yield f'`MuonWithAdam`의 {spread(row["flip at test"])}와'
    yield f'Muon은 Adam보다 {gain(row["Muon"], white)} 낫습니다'
    yield f'one-cycle을 더하면 {gain(cycle, row["Muon"])} 더 오릅니다'
    yield gain(row['label smoothing'], cycle)
    yield f'{gain(row["flip at test"], row["label smoothing"])} 올랐습니다'
    yield f'차이 {gain(row["weight averaging"], row["flip at test"])}는 표준편차 안'


def traded_claims():
    row, tutorial = measured('recipe'), measured('tutorial')['tutorial']
    full, traded = row['flip at test'], row['one view']
    more = f'`flip at test`는 그보다 {gain(full, tutorial)}를 더 맞힙니다'
    yield f'그대로 돌리면(두 에포크) {spread(tutorial)}이고, {more}'
    learning, testing = (
        f'{middle(full, key):.2f}초에서 {middle(traded, key):.2f}초로'
        for key in ('seconds', 'test_seconds')
    )
    yield f'모두 {gain(full, traded)} 내주고 학습은 {learning}'
    yield f'테스트하는 시간은 {testing} 줄었습니다'


def by_seed(ours, theirs):
    "같은 시드끼리 나눈 시간의 비, 정확도의 차이와 한쪽 t 검정의 p"
    for samples in (ours, theirs):
        assert [sample['repeat'] for sample in samples] == [0, 1, 2]
    ratios = [a['seconds'] / b['seconds'] for a, b in zip(ours, theirs)]
    each = (f'{ratio:.2f}배' for ratio in ratios)
    every = '시드 0은 {}, 시드 1은 {}, 시드 2는 {}'.format(*each)
    gap = mean(ours, 'accuracy') - mean(theirs, 'accuracy')
    reached = [[s['accuracy'] for s in samples] for samples in (ours, theirs)]
    p = ttest_ind(*reached, alternative='less').pvalue
    assert p > 0.05
    higher = f'{abs(gap):.2f} %p {"높" if gap > 0 else "낮"}'
    return f'{statistics.median(ratios):.2f}배({every}) 시간에', higher, p


def earlier_race_claims():
    found = raced(AVX2)
    for name, samples in found.items():
        yield f'| {name} | {mean(samples, "seconds"):,.0f} | {spread(samples)} |'
    ratios, higher, p = by_seed(found[EARLIER], found['airbench94_muon'])
    yield f'중앙값으로 airbench94_muon의 {ratios} 마치고'
    yield f'정확도는 평균 {higher}았습니다(p = {p:.2f}, '


def race_claims():
    found = raced(BF16)
    assert [sample['repeat'] for sample in found['airbench94']] == [0, 1]
    yield '시드 셋(airbench94는 둘)의 평균과, 정확도의 표준편차입니다'
    for name, samples in found.items():
        yield f'| {name} | {mean(samples, "seconds"):,.0f} | {spread(samples)} |'
    yield 'AMD EPYC(AVX512_BF16) 2코어에서 bf16으로 계산했고'
    yield '시드 셋으로 번갈아 돌렸습니다'
    ratios, higher, p = by_seed(found['fast'], found['airbench94_muon'])
    yield f'`fast`는 중앙값으로 airbench94_muon의 {ratios} 마치고'
    yield f'정확도는 평균 {higher}습니다(반올림하기 전의 값으로)'
    yield f'p = {p:.2f}로, 그렇게 볼 근거가 모자랍니다'
    if higher.endswith('낮'):
        yield '같다는 뜻은 아닙니다'


def earlier_on_bf16_claims():
    ours, theirs = raced(BF16)[EARLIER], measured('race')[BESIDE]
    ratios, higher, p = by_seed(ours, theirs)
    gap = mean(ours, 'accuracy') - mean(raced(BF16)['fast'], 'accuracy')
    yield f'평균은 {gap:.2f} %p 높지만'
    then = f'airbench94_muon(그때는 {mean(theirs, "seconds"):.0f}초)'
    yield f'다른 때에 {then}과 번갈아 재니 중앙값으로 {ratios} 마치고'
    yield f'정확도는 평균 {higher}았습니다(p = {p:.2f})'


LONGER = 'fast net, batch 2000, 12 epochs, 20, 26, 32 px, by race'


def long_run_claims():
    [long_run] = measured('tries')['fast, 16 epochs, by race']
    short = raced(BF16)['fast'][0]
    assert long_run['repeat'] == short['repeat'] == 0
    seconds, accuracy = long_run['seconds'], long_run['accuracy']
    yield f'학습하니 {seconds:,.0f}초에 {accuracy:.1f} %였습니다'
    every = mean(raced(BF16)['fast'], 'accuracy')
    yield f'열 에포크의 시드 0은 {short["accuracy"]:.1f} %(셋의 평균은 {every:.1f} %)'


def longer_claims():
    longer, theirs = measured('tries')[LONGER], raced(AVX2)['airbench94_muon']
    pairs = [(a, b) for a in longer for b in theirs if a['repeat'] == b['repeat']]
    assert len(pairs) == len(longer) == 2
    ratio = statistics.median(a['seconds'] / b['seconds'] for a, b in pairs)
    yield f'시드 둘로 {ratio:.2f}배 시간에 {mean(longer, "accuracy"):.1f} %였습니다'


def points(sample):
    "에포크마다와 마지막의 (초, 테스트 정확도)"
    return [*sample['curve'], [sample['seconds'], sample['accuracy']]]


def mean_points(samples):
    "시드마다의 곡선을 평균한 것, 마지막 평가까지"
    curves = [points(sample) for sample in samples]
    return [
        [statistics.mean(values) for values in zip(*same)]
        for same in zip(*curves, strict=True)
    ]


def curve_lines(where, name, samples):
    seconds, accuracy = zip(*mean_points(samples))
    yield ','.join([where, name, 'seconds', *(f'{value:.0f}' for value in seconds)])
    yield ','.join([where, name, 'accuracy', *(f'{value:.1f}' for value in accuracy)])


def first_reached(line, accuracy):
    "점을 이은 선이 그 정확도에 처음 닿은 때, 초"
    for (since, low), (until, high) in zip([line[0], *line], line):
        if high >= accuracy:
            share = (accuracy - low) / (high - low) if high > low else 1
            return since + share * (until - since)


def behind(ours, theirs):
    "`theirs`의 선이 먼저 닿는 정확도, 0.1 %마다"
    low, high = ours[0][1], min(ours[-1][1], theirs[-1][1])
    every = (tenth / 10 for tenth in range(math.ceil(10 * low), int(10 * high) + 1))
    return [a for a in every if first_reached(ours, a) >= first_reached(theirs, a)]


def soonest(lines, accuracy):
    "선들 가운데 그 정확도에 가장 먼저 닿은 때, 초. 닿은 선이 없으면 무한대"
    return min(first_reached(line, accuracy) or math.inf for line in lines)


def first_claims():
    "bf16에서는 어느 정확도에서나 두 `fast` 가운데 하나가 가장 먼저이다."
    found = raced(BF16)
    ours = [mean_points(found.pop(name)) for name in ('fast', EARLIER)]
    others = [mean_points(samples) for samples in found.values()]
    first = math.ceil(min(line[0][1] for line in ours))
    last = max(line[-1][1] for line in others)
    tenths = (tenth / 10 for tenth in range(10 * first, int(10 * last) + 1))
    for accuracy in (*tenths, last):
        assert soonest(ours, accuracy) < soonest(others, accuracy), accuracy
    yield f'{first} %부터 다른 선이 닿은 가장 높은 {last:.1f} %까지'


def test_fast_is_left_of_the_others():
    text = prose(SPEED)
    for where, ours in OURS.items():
        found = raced(where)
        fast = found.pop(ours)
        for other in found.values():
            assert behind(mean_points(fast), mean_points(other)) == []
        for name in THEIRS & found.keys():
            for one, other in zip(fast, found[name]):
                assert one['repeat'] == other['repeat']
                assert behind(points(one), points(other)) == []
    assert '두 그림 모두, 함께 지나는 정확도에서는 `fast`의 선' in text
    assert '두 airbench와는 시드마다 따로 그려도 그렇습니다' in text
    epochs, sizes = len(fast[0]['curve']), read_recipe('fast')['model']['size']
    small = epochs * (len(sizes) - 1) // len(sizes)
    pixels = '픽셀과 '.join(map(str, sizes[:-1]))
    assert f'bf16에서 `fast`의 앞의 {small}점은 {pixels}픽셀로' in text
    small = 2 * len(raced(BF16)[EARLIER][0]['curve']) // 3  # 크기 셋의 앞의 둘
    assert f'`{EARLIER}`의 앞의 {small}점은 두 그림 모두 20픽셀과 26픽셀로' in text


def test_the_race_is_drawn_as_it_was_run():
    lines = [
        line
        for where, label in ((AVX2, 'AVX2'), (BF16, 'bf16'))
        for name, samples in raced(where).items()
        for line in curve_lines(label, name, samples)
    ]
    assert '\n'.join(lines) in SPEED.read_text().replace('\\n",\n    "', '\n')


def conv_claims():
    found, worst = measured('conv'), 1.0
    for size in (20, 24, 26, 32):
        ways = [found[f'step, {size} px, {way}'] for way in ('direct', 'winograd')]
        ratios = sorted(
            slow['seconds'] / fast['seconds'] for slow, fast in zip(*ways, strict=True)
        )
        middle_one = f'{statistics.median(ratios):.2f}배'
        worst = min(worst, ratios[0])
        span = f'({ratios[0]:.2f}~{ratios[-1]:.2f}배)'
        yield f'| {size}픽셀 | {middle_one}{span} |'
    assert worst < 1
    yield '1배에 못 미친 적도 있습니다'


def step_flops(size, learns):
    "배우는 한 스텝의 곱셈과 덧셈. `learns`는 첫 층의 편향을 배우는가"
    net = FastNet((3, 32, 32), 10).double()  # Winograd가 아니라 정의대로 곱한다.
    net.whiten.bias.requires_grad_(learns)
    with FlopCounterMode(display=False) as counter:
        net.logits(torch.zeros(2, 3, size, size).double()).sum().backward()
    return counter.get_total_flops()


def frozen_claims():
    yield f'(`whitening_epochs: {read_recipe("fast")["model"]["whitening_epochs"]}`)'
    for size in (20, 32):
        saved = 1 - step_flops(size, learns=False) / step_flops(size, learns=True)
        yield f'20픽셀에서나 32픽셀에서나 한 스텝의 곱셈과 덧셈이 {100 * saved:.1f} %'


LONG = {  # 큰 신경망을 길게. 글의 표에 있는 것
    'fast net, 13 epochs, 18, 24, 32 px': (
        '배치 500, `FastModel`의 기본값, 18 → 24 → 32픽셀 | 13'
    ),
    'fast net, SGD, batch 2000, 12 epochs, 20, 26, 32 px': (
        '배치 2,000, airbench94_muon의 학습률과 SGD, 20 → 26 → 32픽셀 | 12'
    ),
}
TOLD = {  # 글의 표에 있는 것
    '2 epochs': '처음부터 끝까지 32픽셀로 두 에포크',
    '20, 24, 32 px': '20, 24, 32픽셀로 차례로 키우며 3.3에포크',
    'easy half skipped': '손실이 평균보다 작은 이미지의 절반을 건너뛰기',
}


def tries_claims():
    samples = measured('tries')
    seen, costs = (
        {name: mean(some, key) for name, some in samples.items()}
        for key in ('accuracy', 'pflop')
    )
    for name, words in TOLD.items():
        yield f'{words} | {seen[name]:.1f} %'
    ratios = [costs[name] / costs['2 epochs'] for name in TOLD]
    yield f'두 에포크의 {min(ratios):.2f}~{max(ratios):.2f}배로'
    gap = seen['2 epochs, earlier script'] - seen['2 epochs']
    yield f'다른 스크립트에서 난수만 달리해 {gap:.1f} %p 높게 나오기도'
    assert seen['20, 24, 32 px'] - seen['2 epochs'] > gap
    assert seen['easy half skipped'] - seen['2 epochs'] <= gap + 0.05
    counts = [len(samples[name]) for name in TOLD]
    assert counts == [3, 3, 1]
    yield '앞의 두 줄은 세 번 잰 것의 평균'
    yield '마지막은 한 번 잰 것'
    for name, words in LONG.items():
        assert len(samples[name]) == 1
        yield f'{words} | {costs[name]:.3f} PFLOP | {seen[name]:.1f} %'
    small, large = (seen[name] for name in ('2 epochs', 'SGD, batch 2000'))
    yield f'배치 500(180스텝)은 {small:.1f} %, '
    yield f'(배치 2,000, 44스텝)은 {large:.1f} %였습니다'


BETTER = 'narrow fast, SiLU, Newton-Schulz 5 times'
MORE = {  # 글의 표에 있는 것
    'narrow fast': '그대로',
    'narrow fast, SiLU': 'SiLU',
    'narrow fast, Newton-Schulz 5 times': (
        'Muon에서 Newton-Schulz를 세 번 대신 다섯 번'
    ),
    BETTER: 'SiLU와 다섯 번을 함께',
    'narrow fast, smoothing 0.1': '라벨 스무딩을 0.2 대신 0.1로',
    'narrow fast, batch 500': '배치를 1,000 대신 500으로, 학습률도 낮추어',
    f'{BETTER}, 20, 24, 28 px': 'SiLU와 다섯 번을 함께, 20, 24, 28픽셀',
}
LOOKS = {0: '없음', 0.1: '확률이 낮은 10 %', 0.2: '20 %', 1: '모두'}


def more_claims():
    samples = measured('tries')
    found = {name: samples[name] for name in MORE}
    costs = [sample['pflop'] for some in found.values() for sample in some]
    assert max(costs) < 1.01 * min(costs)
    for name, words in MORE.items():
        yield f'| {words} | {mean(found[name], "accuracy"):.1f} % |'
    plain = [sample['accuracy'] for sample in found.pop('narrow fast')]
    low, high = min(plain), max(plain)
    assert len(plain) == 3 and {len(some) for some in found.values()} == {1}
    span = f'{low:.1f}~{high:.1f}'
    yield f'첫 줄은 시드 셋의 평균({span})이고 나머지는 시드 0으로 한 번씩'
    yield f'{high - low:.1f} %p쯤은 우연일 수 있습니다'
    middle_one, last = statistics.mean(plain), f'{BETTER}, 20, 24, 28 px'
    moved = {k: abs(v[0]['accuracy'] - middle_one) for k, v in found.items()}
    assert [k for k, by in moved.items() if by > high - low] == [last]
    yield '그보다 달라진 것은 마지막 줄뿐인데'
    yield f'와는 {gain(found[last], found[BETTER])} 차이입니다'
    [small] = samples['fast, SiLU, Newton-Schulz 5 times, 12 epochs, 28 px, by race']
    large = raced(BF16)['fast'][0]
    assert small['repeat'] == large['repeat'] == 0
    assert small['accuracy'] < large['accuracy']
    yield f'열두 에포크를 학습하니 테스트 정확도가 {small["accuracy"]:.1f} %로'
    yield f'열 에포크의 {large["accuracy"]:.1f} %보다 낮았습니다(둘 다 시드 0)'


def looks_claims():
    [sample] = measured('tries')[BETTER]
    seen = {look['share']: look for look in sample['looks']}
    for share, words in LOOKS.items():
        yield f'| {words} | {seen[share]["accuracy"]:.1f} % |'
    third, rounded = seen[0.3], {k: round(v['accuracy'], 1) for k, v in seen.items()}
    assert rounded[0.1] < rounded[1] - 0.5
    assert min(rounded[0.2], rounded[0.3]) > rounded[1] - 0.15
    yield '20 %부터는 모두 본 것에 거의 닿습니다'
    yield f'표대로 30 %이면 보는 횟수가 한 장에 여섯 번에서 {1 + 0.3 * 5:.1f}번으로'
    confidence = read_recipe('fast')['model']['confidence']
    assert round(third['confidence'], 1) == confidence
    yield f'| 30 % (확률이 {confidence} 이하) | {third["accuracy"]:.1f} % |'
    yield f'(`confidence: {confidence}`)'


def muon_claims():
    found = measured('muon')
    pairs = zip(found['fast, bf16'], found['fast, 32 bits'], strict=True)
    ratio = statistics.median(slow['seconds'] / fast['seconds'] for slow, fast in pairs)
    yield f'Muon의 한 걸음이 32비트에서 {ratio:.0f}배 빨랐습니다'


def command_claims():
    found = measured('tutorial')
    yield f'{gain(found["quick"], found["tutorial"])} 더 맞히면서'
    ratios = paired('quick', 'seconds')
    low, high = ratios[0], ratios[-1]
    yield f'학습은 {statistics.median(ratios):.1f}배({low:.1f}~{high:.1f}배)'
    yield f'학습이 {statistics.median(ratios):.1f}배 빨라지기까지'
    whole = {name: middle(rows, 'command_seconds') for name, rows in found.items()}
    ratio = statistics.median(paired('quick', 'command_seconds'))
    yield f'{whole["tutorial"]:.0f}초가 {whole["quick"]:.0f}초로, {ratio:.1f}배'
    seen = 2 * 45_000, 256 * read_recipe('quick')['trainer']['limit_train_batches']
    more = seen[0] / seen[1]
    assert 9 < more < 10 and 6 < statistics.median(ratios) / more < 7
    yield '이미지를 열 배 가까이'
    yield '일곱 배 가까이'
    first = middle(measured('start')['--recipe quick'])
    yield f'{whole["quick"]:.0f}초 가운데 첫 스텝까지의 {first:.1f}초는'
    ratios = [
        statistics.median(paired('cifar_lit', key))
        for key in ('seconds', 'command_seconds')
    ]
    yield '학습이 {:.1f}배, 명령이 {:.1f}배'.format(*ratios)


CHOSEN_ON = 'flip at test'  # `quick`의 학습률을 고른 줄
FIGURE = r'\d[\d,.]*(?: ± [\d.]+)? ?(?:%p|%|초|ms|배)'


def figures(text):
    "글에서 잰 값으로 보이는 것. 표와 울타리(```) 안은 뺀다."
    text = re.sub(r'^```.*?^```', '', text, flags=re.S | re.M)
    text = re.sub(r'^\|.*$', '', text, flags=re.M)
    return set(re.findall(FIGURE, text))


def test_every_figure_of_the_prose_is_measured():
    text = prose(SPEED)
    makers = [step_claims, recipe_claims, muon_claims, tries_claims, conv_claims]
    makers += [
        command_claims,
        race_claims,
        long_run_claims,
        earlier_on_bf16_claims,
        first_claims,
        earlier_race_claims,
        longer_claims,
    ]
    makers += [frozen_claims, traded_claims, more_claims, looks_claims]
    claims = [claim for make in makers for claim in make()]
    assert [claim for claim in claims if claim not in text] == []
    measured_ones = set().union(*map(figures, claims))
    assert figures(text) - measured_ones == set()


def test_figures_are_found():
    text = '| 3.0 % |\n```\n4초\n```\n1,029초, 2.5배(1.4~2배), 90.8 ± 0.1 %, 16픽셀'
    assert figures(text) == {'1,029초', '2.5배', '2배', '90.8 ± 0.1 %'}


def test_learning_rates_were_chosen_on_validation(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'bench')
    grid, recipe = import_module('grid'), import_module('recipe')
    samples = json.loads((ROOT / 'bench/results/grid.json').read_text())['samples']
    assert {sample['split'] for sample in samples} == {'val'}
    for name in grid.GRIDS:
        assert grid.best(samples, name)[0] == recipe.settings_for(name), name
    chosen, searched = dict(recipe.CHOSEN), dict(grid.GRIDS)
    assert chosen.pop('Muon + one-cycle') and searched.pop(CHOSEN_ON)
    assert chosen.keys() == searched.keys()


def test_bench_tables_come_from_the_samples(tmp_path):
    ignore = shutil.ignore_patterns('out', '__pycache__')
    shutil.copytree(ROOT / 'bench', tmp_path / 'bench', ignore=ignore)
    made = tmp_path / 'bench/results/README.md'
    made.unlink()
    run('bench', 'none', '--table', cwd=tmp_path)
    assert made.read_text() == (ROOT / 'bench/results/README.md').read_text()


# 08장의 숫자

SCALE = NBS / '08_scale.ipynb'


def in_cells(path):
    "셀에 적힌 그대로의 글"
    cells = nbformat.read(path, 4).cells
    return '\n'.join(cell.source for cell in cells)


def test_precision_table_is_the_measured_one():
    found, text = measured('precision'), in_cells(SCALE)
    base = found['32-true']
    assert len(base) >= 5
    for name, samples in found.items():
        pairs = list(zip(samples, base, strict=True))
        lost = [ours['accuracy'] - theirs['accuracy'] for ours, theirs in pairs]
        faster = [theirs['seconds'] / ours['seconds'] for ours, theirs in pairs]
        row = f'| `{name}` | {spread(samples)} | '
        if name != '32-true':
            row += f'{statistics.mean(lost):+.1f} ± {statistics.stdev(lost):.1f} %p'
        row += f' | {middle(samples):.0f}초'
        if name != '32-true':
            row += f', {statistics.median(faster):.2f}배 빠름'
        assert f'{row} |' in text


def test_plotted_batches_are_the_measured_ones():
    samples = json.loads((ROOT / 'bench/results/batch.json').read_text())['samples']

    def at(**wanted):
        found = [sample for sample in samples if wanted.items() <= sample.items()]
        assert len(found) >= 3
        return f'{mean(found, "accuracy"):.1f}'

    rows = []
    for optimizer in ('Adam', 'SGD'):
        for name in ('same', 'square root', 'linear'):
            start = at(optimizer=optimizer, batch=32)
            rest = [at(optimizer=optimizer, batch=b, name=name) for b in (256, 1024)]
            rows.append(','.join([optimizer, name, start, *rest]))
    assert '\n'.join(rows) in in_cells(SCALE)


def test_search_figures_are_the_measured_ones():
    found, text = measured('search'), in_cells(SCALE)
    pairs = zip(found['best'], found['default'], strict=True)
    gains = [ours['accuracy'] - theirs['accuracy'] for ours, theirs in pairs]
    gain = f'{statistics.mean(gains):.1f} ± {statistics.stdev(gains):.1f} %p'
    before, after = (spread(found[name]) for name in ('default', 'best'))
    assert f'{before}에서 {after}로, 같은 시드끼리 {gain} 올랐습니다' in text
    trials = [s for s in found['trial'] if s['state'] == 'COMPLETE']
    best = sorted(trials, key=lambda sample: sample['value'])
    for sample in best[:4]:
        assert f'| {sample["number"]} | {sample["value"]:.3f} | ' in text


def test_plotted_predictions_are_the_measured_ones(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'bench')
    samples = json.loads((ROOT / 'bench/results/paper.json').read_text())['samples']
    for point in import_module('paper').points(samples):
        figures = f'{point["predicted"]:.3g},{point["measured"]:.3g}'
        assert f'{point["what"]},{point["width"]},{figures}' in in_cells(SCALE)


def test_shard_table_is_the_measured_one(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'bench')
    common = import_module('common')
    samples = json.loads((ROOT / 'bench/results/stream.json').read_text())['samples']
    names = {'memory': '메모리', 'shards on disk': '디스크의', 'shards on S3': 'S3의'}
    for name, korean in names.items():
        [row] = re.findall(rf'^\| {korean}[^,]*? \|.*$', prose(SCALE), re.M)
        for size in (60_000, 1_000_000):
            found = common.pick(samples, pictures=size)
            ours = common.pick(found, name=name)
            rate = common.middle(ours, 'rate') / 10_000
            most = max(sample['memory'] for sample in ours)
            figures = f'초당 {rate:.1f}만 장, {most:,} MiB'
            if name != 'memory':
                ratio, *_ = common.faster(found, name, 'memory', 'rate')
                figures += f', {ratio:.2f}배 걸림'
            assert f'{figures} |' in row
    step = middle(measured('step')['LitModel'])
    told = (
        f'06장의 배치 128에 {1000 * step:.1f} ms, 초당 {round(128 / step, -2):,.0f}장쯤'
    )
    assert told in prose(SCALE)


def unchecked(code):
    "출력을 비교하지 않으면서, 바로 다음 코드 셀이 값을 확인하지도 않는 셀"
    found = []
    for cell, following in zip(code, [*code[1:], None]):
        if IGNORED in cell.metadata.get('tags', ()):
            source = following.source if following else ''
            if not (source.startswith('#| hide') and 'assert' in source):
                found.append(cell.source)
    return found


def broken(output, following):
    "한 흐름의 출력이 둘로 나뉘었는가. 문서에서 글 한가운데의 줄이 바뀐다."
    both = {output.output_type, following.output_type} == {'stream'}
    return both and output.name == following.name


def test_broken_streams_are_found():
    made = nbformat.v4.new_output
    out, other = made('stream', text='학습 9,'), made('stream', text='000\n')
    error, shown = made('stream', name='stderr'), made('display_data')
    assert broken(out, other)
    assert not any(map(broken, [out, error, shown], [error, shown, other]))


def test_unchecked_cells_are_found():
    tagged = nbformat.v4.new_code_cell('random()', metadata={'tags': [IGNORED]})
    plain = nbformat.v4.new_code_cell('assert True')
    check = nbformat.v4.new_code_cell('#| hide\nassert True')
    empty = nbformat.v4.new_code_cell('#| hide\nimport os')
    assert unchecked([plain, tagged, check, plain]) == []
    for code in ([tagged], [tagged, plain, check], [tagged, empty, check]):
        assert unchecked(code) == ['random()']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean(path):
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    unrun = [c.source for c in code if c.source.strip() and not c.execution_count]
    assert not unrun, '돌리지 않은 셀이 있다: make notebooks'
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == 'error']
    local = re.search(r'/(root|home|work|tmp|Users)/', json.dumps(outputs))
    assert not local, '출력에 이 컴퓨터의 경로가 있다'
    cut = [
        cell.source for cell in code for pair in pairwise(cell.outputs) if broken(*pair)
    ]
    assert not cut, '이어진 출력이 토막 나 있다: make notebooks'
    assert unchecked(code) == []
    for cell in code:
        assert 'NBVAL_IGNORE_OUTPUT' not in cell.source, f'{IGNORED} 태그를 쓴다'
        directive = cell.source.startswith('#| ')
        assert directive or '#| ' not in cell.source, cell.source[:80]
    markdown = [cell.source for cell in notebook.cells if cell.cell_type == 'markdown']
    prose = '\n'.join(markdown)
    assert not re.findall(WRONG_WORDS, prose)
    if re.match(r'\d\d_', path.stem):
        assert '## 정리' in prose and '다음: ' in prose


def test_links_are_made_from_settings():
    settings = read_settings()
    repo = f'{settings["user"]}/{settings["repo"]}'
    blob = re.compile(r'github(?:\.com|/)/?([\w-]+/[\w-]+)/blob')
    install = re.compile(r'git\+https://github\.com/([\w-]+/[\w-]+)@v([\d.]+)')
    for path in NOTEBOOKS:
        text = path.read_text()
        assert set(blob.findall(text)) <= {repo}
        place = path.relative_to(ROOT).as_posix()
        colab = f'github/{repo}/blob/{settings["branch"]}/{place}'
        assert path.stem == 'index' or colab in text
        assert set(install.findall(text)) == {(repo, settings['version'])}


def test_version_is_the_same_everywhere():
    settings = read_settings()
    citation = (ROOT / 'CITATION.cff').read_text()
    changelog = (ROOT / 'CHANGELOG.md').read_text()
    newest = re.search(r'^## \[([\d.]+)\] - ([\d-]+)$', changelog, re.M)
    version, date = newest.groups()
    assert version == settings['version']
    assert f'\nversion: {version}\ndate-released: {date}\n' in citation
    license_name = {'apache2': 'Apache-2.0'}[settings['license']]
    assert f'license: {license_name}' in citation


def test_cold_start_figures_are_the_measured_ones():
    found = measured('imports')
    onnx, checkpoint = (
        middle(found[f'cifar-lit classify {name}'])
        for name in ('model.onnx', 'net.ckpt')
    )
    torch = middle(found['import torch'])
    text = prose(NBS / '05_share.ipynb')
    assert f'ONNX가 {onnx:.1f}초, 체크포인트가 {checkpoint:.1f}초였습니다' in text
    assert f'`import torch`만 해도 {torch:.1f}초입니다' in text
    vision = middle(found['import torchvision'])
    told = f'2코어에서 {vision:.1f}초, `import torch`만은 {torch:.1f}초'
    assert told in prose(NBS / 'parts/download.ipynb')


def test_startup_figures_are_the_measured_ones():
    names = 'import torch', 'import lightning.pytorch', 'cifar-lit tutorial'
    torch, lightning, first = (middle(measured('start')[name]) for name in names)
    text = prose(NBS / 'parts/startup.ipynb')
    both = f'`import torch`는 {torch:.1f}초, `import lightning.pytorch`는'
    assert f'{both} {lightning:.1f}초가 걸립니다' in text
    assert f'첫 스텝을 시작할 때까지 모두 {first:.1f}초입니다' in text
    changes = (ROOT / 'CHANGELOG.md').read_text()
    assert f'({first:.1f}초와 {lightning:.1f}초)' in changes


def test_help_tells_the_measured_times():
    quick = measured('tutorial')['quick']
    spent = middle(quick), middle(quick, 'command_seconds')
    assert f'학습 {spent[0]:.0f}초, 명령 전체 {spent[1]:.0f}초' in HELP
    assert f'# {spent[1]:.0f}초, 그 절반쯤은' in (ROOT / 'README.md').read_text()
    first = middle(measured('start')['--recipe quick'])
    assert abs(first / spent[1] - 0.5) < 0.1
    minutes = mean(raced(BF16)['fast'], 'seconds') / 60
    assert abs(minutes - 10) < 1 and '학습 10분쯤' in HELP


@pytest.mark.parametrize('name', ['03_train', 'parts/resume'])
def test_torture_table_is_the_measured_one(name):
    rows = json.loads((ROOT / 'bench/results/torture.json').read_text())
    assert table(rows) in prose(NBS / f'{name}.ipynb')
