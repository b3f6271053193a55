"""nbdev 노트북을 사이트의 쪽으로 바꾼다.

`#| hide` 셀은 감추고, 나머지 `#|` 줄은 지우고, 링크와 대체 글과 붙은 그림을 고친다.
"""

import ast
import base64
import hashlib
import posixpath
import re
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
from nbformat.v4 import new_markdown_cell

_config = ConfigParser()
_config.read(Path(__file__).parent.parent / 'settings.ini', encoding='utf-8')
SETTINGS = _config['DEFAULT']
REPO = f'{SETTINGS["user"]}/{SETTINGS["repo"]}/blob/{SETTINGS["branch"]}'
GITHUB = f'https://github.com/{REPO}'
COLAB = f'https://colab.research.google.com/github/{REPO}'
INDEX = 'index'
STORY, INSIDE = '이야기', '속 들여다보기'
PARTS = 'parts/'
_NOTEBOOK = r'((?:\w+/)*\w+)\.ipynb'
_BADGE = re.compile(
    rf'\[!\[[^\]]*\]\([^)]*colab-badge\.svg\)\]\([^)]*/nbs/{_NOTEBOOK}\)'
)
_IN_REPOSITORY = re.compile(
    rf'\]\({re.escape(GITHUB)}/nbs/{_NOTEBOOK}(#[^)]*)?\)(?!\{{)'
)
_IN_LIST = re.compile(rf'\[([^\[\]]+)\]\((?:{re.escape(GITHUB)}/nbs/)?{_NOTEBOOK}\)')
_ANCHOR = re.compile(r'(?<=\.ipynb)#([^)\s]+)(?=\))')
_ATTACHMENT = re.compile(r'(?<=\]\()attachment:([^)\s]+)')


def read_notebooks(folder):
    "`{'parts/toy': 노트북}`. 학습이 남긴 폴더에도 노트북이 있으므로 거기는 안 본다."
    story, parts = Path(folder).glob('*.ipynb'), Path(folder).glob('parts/*.ipynb')
    found = {}
    for path in sorted([*story, *parts]):
        name = path.relative_to(folder).with_suffix('').as_posix()
        found[name] = nbformat.read(path, as_version=4)
    return found


def groups(index):
    "첫 쪽이 차례로 드는 노트북의 제목: `{'이야기': {이름: 제목}, '속 들여다보기': …}`"
    prose = [cell.source for cell in index.cells if cell.cell_type == 'markdown']
    lines = '\n'.join(prose).splitlines()
    titles = {}
    # 표와 목록이 먼저이다. 글 속의 링크는 거기 없는 노트북에만 제목을 준다.
    for line in sorted(lines, key=lambda line: not re.match(r'\s*([|*-]|\d+\.)', line)):
        for title, name in _IN_LIST.findall(line):
            titles.setdefault(name, title)
    titles.pop(INDEX, None)
    inside = {name: title for name, title in titles.items() if name.startswith(PARTS)}
    story = {name: title for name, title in titles.items() if name not in inside}
    return {STORY: story, INSIDE: inside}


def definitions(source):
    "셀이 정의하는 공개 이름"
    if not source.startswith('#| export'):
        return []
    tree = ast.parse(re.sub(r'^\s*[%!].*$', '', source, flags=re.M)).body
    names = [getattr(node, 'name', None) for node in tree]
    for node in tree:
        if isinstance(node, ast.Assign):
            names += [t.id for t in node.targets if isinstance(t, ast.Name)]
    return [name for name in names if name and not name.startswith('_')]


def module_of(notebook):
    "노트북이 만드는 모듈: `data`, `parts.toy`. 없으면 빈 글"
    for cell in notebook.cells:
        if cell.source.startswith('#| default_exp'):
            return cell.source.split()[-1]
    return ''


def label(module, name):
    return f'def-{module.replace(".", "-")}-{name.lower()}'


def headings(source):
    "마크다운의 제목. 코드 블록의 주석은 세지 않는다."
    prose = re.sub(r'^```.*?^```', '', source, flags=re.M | re.S)
    return re.findall(r'^#+ (.*)', prose, flags=re.M)


def _badges(name, whole):
    colab = f'[Colab에서 열기]({COLAB}/nbs/{name}.ipynb){{.badge}}'
    source = f'[GitHub에서 소스 보기]({GITHUB}/nbs/{name}.ipynb){{.badge}}'
    return f'{colab} {source}' if whole else colab


def _slug(anchor):
    "GitHub처럼. JupyterLab의 앵커는 대문자와 문장 부호를 그대로 둔다."
    return re.sub(r'[^\w-]', '', unquote(anchor).lower())


def _links(text, name):
    "배지는 바깥 그림 대신 글자로, 저장소의 노트북을 가리키는 링크는 사이트 안으로"

    def inside(found):
        path = posixpath.relpath(f'{found[1]}.ipynb', posixpath.dirname(name) or '.')
        return f']({path}{found[2] or ""})'

    text = _BADGE.sub(lambda found: _badges(found[1], name != INDEX), text)
    text = _IN_REPOSITORY.sub(inside, text)
    return _ANCHOR.sub(lambda found: f'#{_slug(found[1])}', text)


def _attachments(cell, name, files):
    "셀에 붙은 그림을 쪽 옆의 파일로"

    def beside(found):
        (data,) = cell.attachments[unquote(found[1])].values()
        content = base64.b64decode(data)
        suffix = posixpath.splitext(unquote(found[1]))[1]
        path = f'{name}_files/{hashlib.sha256(content).hexdigest()[:16]}{suffix}'
        files[path] = content
        return posixpath.relpath(path, posixpath.dirname(name) or '.')

    cell.source = _ATTACHMENT.sub(beside, cell.source)
    cell.pop('attachments', None)


def _sentence(text):
    "글의 마지막 문장에서 마크다운 기호를 뺀 것"
    lines = [
        line
        for line in text.splitlines()
        if line.strip() and not re.match(r'[#>|`\[!]|\s*[-\d]', line)
    ]
    return re.sub(r'[`*]|\[(?=[^\]]*\]\()|\]\([^)]*\)', '', lines[-1]) if lines else ''


def _toctrees(index):
    "옆의 목차는 첫 쪽의 차례와 같다."
    lines = []
    for caption, titles in groups(index).items():
        if titles:
            lines += ['```{toctree}', ':hidden:', f':caption: {caption}', '']
            lines += [f'{title} <{name}>' for name, title in titles.items()]
            lines += ['```', '']
    return '\n'.join([*lines, '```{toctree}', ':hidden:', '', 'api', '```'])


def to_page(notebook, name):
    "쪽이 될 노트북과, 그 옆에 둘 그림 `{경로: 내용}`"
    page, files = nbformat.from_dict(notebook), {}
    module = module_of(notebook)
    cells, heading, prose = [], '', ''
    for cell in page.cells:
        if cell.cell_type == 'markdown':
            heading = (headings(cell.source) or [heading])[-1]
            prose = _sentence(cell.source) or prose
            cell.source = _links(cell.source, name)
            _attachments(cell, name, files)
        elif cell.cell_type == 'code':
            lines = cell.source.splitlines()
            if not lines or lines[0].startswith(('#| hide', '#| default_exp')):
                continue
            for defined in definitions(cell.source):
                cells.append(new_markdown_cell(f'({label(module, defined)})='))
            cell.metadata['mystnb'] = {'image': {'alt': f'{heading}: {prose}'}}
            kept = [line for line in lines if not line.startswith(('#| ', '# NBVAL_'))]
            cell.source = '\n'.join(kept)
        cells.append(cell)
    if name == INDEX:
        cells.append(new_markdown_cell(_toctrees(notebook)))
    page.cells = cells
    return page, files
