"""노트북, 내보낸 라이브러리, README, 벤치마크의 숫자가 서로 맞는지 본다."""

import ast
import configparser
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / 'nbs').glob('*.ipynb'))


def run(*args, cwd):
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def test_export_changes_nothing(tmp_path):
    for name in (
        'settings.ini',
        'nbs',
        'cifar_lit',
        'README.md',
        'setup.py',
        'pyproject.toml',
    ):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(
                path,
                tmp_path / name,
                ignore=shutil.ignore_patterns('__pycache__', 'runs', 'data', 'wandb'),
            )
        else:
            shutil.copy(path, tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / 'cifar_lit').iterdir()}
    for p in (tmp_path / 'cifar_lit').glob('[!_]*.py'):
        p.unlink()
    run(
        '-c',
        'from nbdev.export import nb_export; from nbdev.doclinks import nbdev_export; nbdev_export()',
        cwd=tmp_path,
    )
    assert {
        p.name: p.read_bytes()
        for p in (tmp_path / 'cifar_lit').iterdir()
        if p.is_file()
    } == before


def test_readme_is_the_index(tmp_path):
    run(
        '-m',
        'nbconvert',
        '--log-level=ERROR',
        '--to',
        'markdown',
        '--output-dir',
        str(tmp_path),
        '--output',
        'README',
        str(ROOT / 'nbs/index.ipynb'),
        cwd=ROOT,
    )
    assert (tmp_path / 'README.md').read_text() == (ROOT / 'README.md').read_text()


def test_every_exported_name_is_shown_in_use():
    names = set()
    for path in (ROOT / 'cifar_lit').glob('*.py'):
        for statement in ast.parse(path.read_text()).body:
            if (
                isinstance(statement, ast.Assign)
                and statement.targets[0].id == '__all__'
            ):
                names |= set(ast.literal_eval(statement.value))
    seen = ''
    for path in NOTEBOOKS:  # 내보내는 셀과 감춘 셀은 빼고, 본문은 코드만 본다.
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == 'markdown':
                seen += ' '.join(re.findall('```.*?```|`[^`\n]+`', cell.source, re.S))
            elif not cell.source.startswith('#| '):
                seen += cell.source
    assert len(names) > 50 and sorted(names - set(re.findall(r'\w+', seen))) == []


def measured(name):
    "벤치마크가 남긴 표본: 이름마다 (초, 정확도, 표본) 목록"
    samples = json.loads((ROOT / f'bench/results/{name}.json').read_text())['samples']
    return {
        key: [s for s in samples if s['name'] == key]
        for key in dict.fromkeys(s['name'] for s in samples)
    }


def spread(rows):
    return f'{statistics.mean(r["accuracy"] for r in rows):.1f} ± {statistics.stdev(r["accuracy"] for r in rows):.1f} %'


def middle(rows, key='seconds'):
    return statistics.median(r[key] for r in rows)


def test_readme_figures_are_the_measured_ones():
    text = (ROOT / 'README.md').read_text()
    found = measured('tutorial')
    for rows in found.values():
        assert f'| {middle(rows):.0f}초 | {spread(rows)} |' in text
    whole = measured('long')['fast']
    assert (
        f'| {statistics.mean(r["seconds"] for r in whole):.0f}초 | {spread(whole)} |'
        in text
    )
    assert (
        all(len(rows) >= 5 for rows in found.values())
        and min(r['accuracy'] for r in found['cifar_lit']) >= 52
    )


def test_speed_tables_are_the_measured_ones():
    text = '\n'.join(
        cell.source for cell in nbformat.read(ROOT / 'nbs/06_speed.ipynb', 4).cells
    )
    found = measured('recipe')
    expected = [
        f'| {statistics.median(r["pictures"] / r["seconds"] for r in rows):,.0f} | {spread(rows)} |'
        for rows in found.values()
    ]
    assert (
        len(expected) == 9
        and [
            line[line.index(' | ') + 1 :]
            for line in text.splitlines()
            if re.search(r'\| [\d,]+ \| [\d.]+ ±', line)
        ]
        == expected
    )
    steps = [middle(rows) * 1000 for rows in measured('step').values()]
    assert [float(ms) for ms in re.findall(r'\| ([\d.]+) ms \|', text)] == [
        round(ms, 1) for ms in steps
    ]


def test_bench_tables_come_from_the_samples(tmp_path):
    shutil.copytree(
        ROOT / 'bench',
        tmp_path / 'bench',
        ignore=shutil.ignore_patterns('out', '__pycache__'),
    )
    (tmp_path / 'bench/results/README.md').unlink()
    run('bench', 'none', '--table', cwd=tmp_path)
    assert (tmp_path / 'bench/results/README.md').read_text() == (
        ROOT / 'bench/results/README.md'
    ).read_text()


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_clean(path):
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert all(cell.execution_count for cell in code if cell.source.strip()), (
        '돌리지 않은 셀이 있다: make notebooks'
    )
    assert not [
        out for cell in code for out in cell.outputs if out.output_type == 'error'
    ]
    outputs = json.dumps([cell.outputs for cell in code])
    assert not re.search(r'/(root|home|work|tmp|Users)/', outputs), (
        '출력에 이 컴퓨터의 경로가 있다'
    )
    assert sum('NBVAL_IGNORE_OUTPUT' in cell.source for cell in code) <= 1
    for cell in code:
        assert '#| ' not in cell.source or cell.source.startswith('#| '), cell.source[
            :80
        ]
    prose = '\n'.join(
        cell.source for cell in notebook.cells if cell.cell_type == 'markdown'
    )
    assert not re.findall('훈련|트레이닝|데이터 세트|에폭', prose)
    assert path.stem == 'index' or ('## 정리' in prose and '다음: ' in prose)


def test_links_are_made_from_settings():
    config = configparser.ConfigParser()
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    settings = config['DEFAULT']
    repo = f'{settings["user"]}/{settings["repo"]}'
    for path in NOTEBOOKS:
        text = path.read_text()
        assert {
            f'{a}/{b}'
            for a, b in re.findall(r'github(?:\.com|/)/?([\w-]+)/([\w-]+)/blob', text)
        } <= {repo}
        assert (
            path.stem == 'index'
            or f'github/{repo}/blob/{settings["branch"]}/nbs/{path.name}' in text
        )
        installs = re.findall(
            r'git\+https://github\.com/([\w-]+/[\w-]+)@v([\d.]+)', text
        )
        assert installs and set(installs) == {(repo, settings['version'])}


def test_version_is_the_same_everywhere():
    config = configparser.ConfigParser()
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    version, citation = (
        config['DEFAULT']['version'],
        (ROOT / 'CITATION.cff').read_text(),
    )
    newest = re.search(
        r'^## \[([\d.]+)\] - ([\d-]+)$', (ROOT / 'CHANGELOG.md').read_text(), re.M
    )
    assert (
        newest[1] == version
        and f'\nversion: {version}\ndate-released: {newest[2]}\n' in citation
    )
    assert (
        f'license: {"Apache-2.0" if config["DEFAULT"]["license"] == "apache2" else "?"}'
        in citation
    )
