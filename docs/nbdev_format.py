"""nbdev 노트북을 문서로 읽는다: `#| hide` 셀은 감추고, 나머지 `#|` 줄은 지우고, 링크와 대체 글을 붙인다."""

import ast
import re
from configparser import ConfigParser
from pathlib import Path

import nbformat

_config = ConfigParser()
_config.read(Path(__file__).parent.parent / 'settings.ini', encoding='utf-8')
SETTINGS = _config['DEFAULT']
REPO = f'{SETTINGS["user"]}/{SETTINGS["repo"]}/blob/{SETTINGS["branch"]}'
GITHUB, COLAB = (
    f'https://github.com/{REPO}',
    f'https://colab.research.google.com/github/{REPO}',
)
_BADGE = re.compile(
    r'\[!\[[^\]]*\]\([^)]*colab-badge\.svg\)\]\([^)]*/nbs/([^/)]+\.ipynb)\)'
)


def definitions(source):
    "셀이 정의하는 공개 이름"
    if not source.startswith('#| export'):
        return []
    tree = ast.parse(re.sub(r'^\s*[%!].*$', '', source, flags=re.M)).body
    names = [getattr(node, 'name', None) for node in tree] + [
        t.id
        for node in tree
        if isinstance(node, ast.Assign)
        for t in node.targets
        if isinstance(t, ast.Name)
    ]
    return [name for name in names if name and not name.startswith('_')]


def label(module, name):
    return f'def-{module}-{name.lower()}'


def _links(text, chapter):
    "Colab 배지는 바깥 그림 대신 글자로, 저장소의 장을 가리키는 링크는 사이트 안으로"
    both = lambda name: (
        f'[Colab에서 열기]({COLAB}/nbs/{name}){{.badge}}'
        + (f' [GitHub에서 소스 보기]({GITHUB}/nbs/{name}){{.badge}}' if chapter else '')
    )
    text = _BADGE.sub(lambda found: both(found[1]), text)
    return re.sub(re.escape(GITHUB) + r'/nbs/(\w+\.ipynb)\)(?!\{)', r'\1)', text)


def _sentence(text):
    "글의 마지막 문장에서 마크다운 기호를 뺀 것"
    lines = [
        line
        for line in text.splitlines()
        if line.strip() and not re.match(r'[#>|`\[]|\s*[-\d]', line)
    ]
    return re.sub(r'[`*]|\[(?=[^\]]*\]\()|\]\([^)]*\)', '', lines[-1]) if lines else ''


def read(text):
    notebook, cells, heading, prose, module = (
        nbformat.reads(text, as_version=4),
        [],
        '',
        '',
        '',
    )
    index = notebook.cells[0].source.startswith('# cifar_lit')
    for cell in notebook.cells:
        if cell.cell_type == 'markdown':
            heading = (re.findall(r'^#+ (.*)', cell.source, flags=re.M) or [heading])[
                -1
            ]
            prose = _sentence(cell.source) or prose
            cell.source = _links(cell.source, not index)
        elif cell.cell_type == 'code':
            lines = cell.source.splitlines()
            if cell.source.startswith('#| default_exp'):
                module = cell.source.split()[-1]
            if not lines or lines[0].startswith(('#| hide', '#| default_exp')):
                continue
            for name in definitions(cell.source):
                cells.append(nbformat.v4.new_markdown_cell(f'({label(module, name)})='))
            cell.metadata['mystnb'] = {'image': {'alt': f'{heading}: {prose}'}}
            cell.source = '\n'.join(
                line for line in lines if not line.startswith(('#| ', '# NBVAL_'))
            )
        cells.append(cell)
    if index:  # 옆의 목차는 첫 쪽의 차례와 같다.
        chapters = dict.fromkeys(
            re.findall(
                r'\[(\d\d [^\]]+)\]\((\w+)\.ipynb\)',
                '\n'.join(cell.source for cell in cells),
            )
        )
        cells.append(
            nbformat.v4.new_markdown_cell(
                '\n'.join(
                    [
                        '```{toctree}',
                        ':hidden:',
                        *(f'{title} <{name}>' for title, name in chapters),
                        'api',
                        '```',
                    ]
                )
            )
        )
    notebook.cells = cells
    return notebook
