"""노트북, 내보낸 라이브러리, README, 벤치마크의 숫자가 서로 맞는지 본다."""
import configparser, json, re, shutil, statistics, subprocess, sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / 'nbs').glob('*.ipynb'))


def run(*args, cwd):
    done = subprocess.run([sys.executable, *args], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_export_changes_nothing(tmp_path):
    for name in ('settings.ini', 'nbs', 'cifar_lit', 'README.md', 'setup.py', 'pyproject.toml'):
        path = ROOT / name
        if path.is_dir(): shutil.copytree(path, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__', 'runs', 'data', 'wandb'))
        else: shutil.copy(path, tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / 'cifar_lit').iterdir()}
    for p in (tmp_path / 'cifar_lit').glob('[!_]*.py'): p.unlink()
    run('-c', 'from nbdev.export import nb_export; from nbdev.doclinks import nbdev_export; nbdev_export()', cwd=tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / 'cifar_lit').iterdir() if p.is_file()} == before


def test_readme_is_the_index(tmp_path):
    run('-m', 'nbconvert', '--log-level=ERROR', '--to', 'markdown', '--output-dir', str(tmp_path), '--output', 'README', str(ROOT / 'nbs/index.ipynb'), cwd=ROOT)
    assert (tmp_path / 'README.md').read_text() == (ROOT / 'README.md').read_text()


def of(samples, name, key): return [sample[key] for sample in samples if sample.get('name', sample.get('step')) == name]
def percent(values): return f'{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f} %'


def test_readme_figures_are_the_measured_ones():
    samples = json.loads((ROOT / 'bench/tutorial.json').read_text())['samples']
    seconds = {name: of(samples, name, 'fit_seconds') for name in ('tutorial', 'cifar_lit')}
    text = (ROOT / 'README.md').read_text()
    for name, row in seconds.items():
        assert f'| {statistics.median(row):.0f}초 | {percent(of(samples, name, "test_accuracy"))} |' in text
    half = statistics.median(b / a for a, b in zip(seconds['tutorial'], seconds['cifar_lit']))
    assert f'{half:.2f}배' in text
    assert len(seconds['cifar_lit']) >= 3 and min(of(samples, 'cifar_lit', 'test_accuracy')) >= 0.52 and half < 0.5


def test_speed_table_is_the_measured_one():
    samples = json.loads((ROOT / 'bench/speed.json').read_text())['samples']
    rows = {name: None for name in [sample['step'] for sample in samples]}
    for name in rows:
        speed = statistics.median(n / t for n, t in zip(of(samples, name, 'pictures'), of(samples, name, 'seconds')))
        rows[name] = f'| {speed:,.0f} | {percent(of(samples, name, "accuracy"))} |'
    text = '\n'.join(cell.source for cell in nbformat.read(ROOT / 'nbs/06_speed.ipynb', 4).cells)
    assert len(rows) == 8 and [line[line.index(' | ') + 1:] for line in text.splitlines() if re.search(r'\| [\d,]+ \| [\d.]+ ±', line)] == list(rows.values())


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_clean(path):
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert all(cell.execution_count for cell in code if cell.source.strip()), '돌리지 않은 셀이 있다: make notebooks'
    assert not [out for cell in code for out in cell.outputs if out.output_type == 'error']
    outputs = json.dumps([cell.outputs for cell in code])
    assert not re.search(r'/(root|home|work|tmp|Users)/', outputs), '출력에 이 컴퓨터의 경로가 있다'
    assert sum('NBVAL_IGNORE_OUTPUT' in cell.source for cell in code) <= 1
    for cell in code: assert '#| ' not in cell.source or cell.source.startswith('#| '), cell.source[:80]
    prose = '\n'.join(cell.source for cell in notebook.cells if cell.cell_type == 'markdown')
    assert not re.findall('훈련|트레이닝|데이터 세트|에폭', prose)
    assert path.stem == 'index' or ('## 정리' in prose and '다음: ' in prose)


def test_links_are_made_from_settings():
    config = configparser.ConfigParser()
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    settings = config['DEFAULT']
    repo = f'{settings["user"]}/{settings["repo"]}'
    for path in NOTEBOOKS:
        text = path.read_text()
        assert {f'{a}/{b}' for a, b in re.findall(r'github(?:\.com|/)/?([\w-]+)/([\w-]+)/blob', text)} <= {repo}
        assert path.stem == 'index' or f'github/{repo}/blob/{settings["branch"]}/nbs/{path.name}' in text
        installs = re.findall(r'git\+https://github\.com/([\w-]+/[\w-]+)@v([\d.]+)', text)
        assert installs and set(installs) == {(repo, settings['version'])}
