"""노트북의 모양을 잰다: 글과 코드의 비, 셀의 길이, 흉내 내면 안 될 코드.

잴 때 쓰는 함수마다 일부러 어긴 노트북으로 정말 찾아내는지도 본다.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parent.parent
NBS = ROOT / 'nbs'
# 이야기의 장과, 장의 중심인 클래스
STORY = {
    '00_data': ['CIFAR10DataModule'],
    '01_callbacks': ['ImagePredictionLogger'],
    '02_model': ['LitModel'],
    '03_train': [],
    '04_evaluate': [],
    '05_share': [],
    '06_speed': ['MuonWithAdam', 'FastModel'],
    '07_cli': [],
    '08_scale': [],
}
PART_CLASSES = {'nets': ['FastNet']}  # 신경망은 한눈에 보여야 한다.
STORY_PATHS = [NBS / f'{name}.ipynb' for name in STORY]
PART_PATHS = sorted(NBS.glob('parts/*.ipynb'))
ALL_PATHS = sorted(NBS.glob('*.ipynb')) + PART_PATHS

PROSE_PER_LINE = 25  # 보이는 코드 한 줄마다 있어야 할 글자 수
STORY_LINES, CLASS_LINES, PART_LINES = 20, 45, 30  # 셀 하나의 줄 수


def read(path):
    return nbformat.read(path, 4)


def each(paths):
    return pytest.mark.parametrize('path', paths, ids=lambda path: path.stem)


# 글과 코드


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def is_hidden(cell):
    return cell.source.startswith('#| hide')


def is_solution(cell):
    folded = cell.metadata.get('jupyter', {}).get('source_hidden', False)
    return folded or 'hide-cell' in cell.metadata.get('tags', ())


def code_lines(source):
    "빈 줄과 `#|`로 시작하는 지시를 뺀 줄"
    lines = source.splitlines()
    return [line for line in lines if line.strip() and not line.startswith('#|')]


def count_shown_lines(notebook):
    "감춘 셀과 풀이를 뺀 코드의 줄 수"
    cells = code_cells(notebook)
    shown = [cell for cell in cells if not is_hidden(cell) and not is_solution(cell)]
    return sum(len(code_lines(cell.source)) for cell in shown)


NOT_PROSE = re.compile(r'^```.*?^```|(?<=\])\([^)]*\)|^\|[-|]+\|$', re.S | re.M)


def count_prose(notebook):
    "글의 글자 수. 울타리(```) 안의 코드, 링크의 주소, 표의 금은 뺀다."
    cells = [cell for cell in notebook.cells if cell.cell_type == 'markdown']
    return sum(len(NOT_PROSE.sub('', cell.source)) for cell in cells)


@each(STORY_PATHS)
def test_story_tells_more_than_it_codes(path):
    notebook = read(path)
    prose, lines = count_prose(notebook), count_shown_lines(notebook)
    assert prose >= PROSE_PER_LINE * lines, f'글 {prose}자, 코드 {lines}줄'


def test_prose_and_shown_lines_are_counted():
    notebook = new_notebook(
        cells=[
            new_markdown_cell(
                '가나 ab\n```python\n다라 = 1\n```\n|---|\n[마](https://바)'
            ),
            new_code_cell('#| export\nx = 1\n\n# 설명\ny = 2'),
            new_code_cell('#| hide\nassert x'),
            new_code_cell('x', metadata={'tags': ['hide-cell']}),
            new_code_cell('y', metadata={'jupyter': {'source_hidden': True}}),
        ]
    )
    assert count_prose(notebook) == len('가나 ab\n\n\n[마]')
    assert count_shown_lines(notebook) == 3


# 셀의 길이


def without_magics(source):
    "`%pip`이나 `!ls` 같은 줄을 파이썬으로 바꾼 소스"
    return TransformerManager().transform_cell(source)


def find_class(cell, name):
    "셀이 정의하는 클래스 `name`. 없으면 None"
    for node in ast.parse(without_magics(cell.source)).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    return None


def parameter_lines(node):
    "`__init__`의 매개변수를 적은 줄의 수"
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == '__init__':
            return method.body[0].lineno - method.lineno - 1
    return 0


def long_cells(notebook, limit, class_names=()):
    "`limit`줄보다 긴 셀. `class_names`의 셀은 매개변수를 빼고 `CLASS_LINES`줄"
    found = []
    for cell in code_cells(notebook):
        if is_hidden(cell):
            continue
        lines, allowed = len(code_lines(cell.source)), limit
        for node in filter(None, (find_class(cell, name) for name in class_names)):
            lines, allowed = lines - parameter_lines(node), CLASS_LINES
        if lines > allowed:
            found.append(f'{lines}줄(> {allowed}): {cell.source[:60]!r}')
    return found


@each(STORY_PATHS)
def test_story_cells_are_short(path):
    assert long_cells(read(path), STORY_LINES, STORY[path.stem]) == []


@each(PART_PATHS)
def test_part_cells_are_short(path):
    assert long_cells(read(path), PART_LINES, PART_CLASSES.get(path.stem, ())) == []


def class_cell(parameters, body):
    head = ['#| export', 'class A:', '    def __init__(', '        self,']
    named = [f'        x{k}=0,' for k in range(parameters)]
    lines = [*head, *named, '    ):', *['        pass'] * body]
    return new_code_cell('\n'.join(lines))


def test_long_cells_are_found():
    fits = '\n\n'.join(['x = 1'] * 20)
    short = new_notebook(cells=[new_code_cell(f'#| export\n{fits}')])
    long = new_notebook(cells=[new_code_cell(f'{fits}\nx = 1')])
    hidden = new_notebook(cells=[new_code_cell(f'#| hide\n{fits}\nx = 1')])
    assert long_cells(short, 20) == long_cells(hidden, 20) == []
    assert len(long_cells(long, 20)) == 1


def test_a_long_class_is_found():
    allowed = new_notebook(cells=[class_cell(parameters=15, body=43)])
    refused = new_notebook(cells=[class_cell(parameters=15, body=44)])
    assert long_cells(allowed, 20, ['A']) == []
    assert len(long_cells(refused, 20, ['A'])) == 1
    assert len(long_cells(allowed, 20, ['B'])) == 1  # 그 장의 클래스가 아니다.


# 흉내 내면 안 될 코드


def makes_calls(node):
    return isinstance(node, ast.Tuple) and any(
        isinstance(item, ast.Call) for item in node.elts
    )


def call_tuples(source):
    "`a.mkdir(), b.unlink()`처럼 부르기를 쉼표로 이은 문장. 셀의 마지막 식은 괜찮다."
    tree = ast.parse(without_magics(source))
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and makes_calls(node.value)
        and node is not tree.body[-1]
    ]


def semicolons(source):
    "문자열과 주석 밖의 `;`이 있는 줄"
    reader = io.StringIO(without_magics(source)).readline
    return [
        token.line.strip()
        for token in tokenize.generate_tokens(reader)
        if token.type == tokenize.OP and token.string == ';'
    ]


def is_lambda(node):
    items = node.elts if isinstance(node, ast.Tuple) else [node]
    return any(isinstance(item, ast.Lambda) for item in items)


def named_lambdas(source):
    "이름을 붙인 lambda"
    found = []
    for node in ast.walk(ast.parse(without_magics(source))):
        if isinstance(node, ast.Assign):
            named = isinstance(node.targets[0], (ast.Name, ast.Tuple))
        else:
            named = isinstance(node, (ast.AnnAssign, ast.NamedExpr))
        if named and is_lambda(node.value):
            found.append(ast.unparse(node))
    return found


CHECKS = (call_tuples, semicolons, named_lambdas)


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
@each(ALL_PATHS)
def test_code_is_worth_imitating(path, check):
    sources = [cell.source for cell in code_cells(read(path))]
    assert [found for source in sources for found in check(source)] == []


@pytest.mark.parametrize(
    'check, wrong, right',
    [
        (call_tuples, 'a(), b()\nc', 'a()\nb(), c()'),
        (call_tuples, 'if x:\n    a(), b()', 'x = a(), b()'),
        (call_tuples, 'if x:\n    %pip y\na(), b()\nc()', '!ls \\\n  a\n%cd x'),
        (semicolons, 'x;y', '!ls; cd \\\n  a;b\n%cd x; y'),
        (semicolons, 'a(); b()', "'a; b'  # c; d"),
        (semicolons, 'plot();', 'f"{a};"'),
        (named_lambdas, 'f = lambda x: x', 'f = sorted(x, key=lambda y: -y)'),
        (named_lambdas, 'f, x = lambda x: x, 1', 'f = {"x": lambda: 1}'),
        (named_lambdas, 'f: object = lambda x: x', 'x: int'),
        (named_lambdas, 'if f := lambda x: x:\n    f(1)', 'module.f = lambda x: x'),
    ],
)
def test_wrong_code_is_found(check, wrong, right):
    assert check(wrong) and not check(right)


# ruff


def ruff_report(folder):
    "ruff가 할 말. 없으면 빈 글"
    report = ''
    for options in (['check', '--output-format=concise'], ['format', '--check']):
        config = ['--no-cache', '--config', str(ROOT / 'pyproject.toml')]
        done = subprocess.run(
            [sys.executable, '-m', 'ruff', *options, *config, str(folder)],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            report += done.stdout + done.stderr
    return report


def test_ruff_has_nothing_to_say():
    report = ruff_report(ROOT)
    assert not report, report


@pytest.mark.parametrize(
    'code', ['import os\n', "x = ''  # " + '가' * 40 + '\n', 'x=1\n']
)
def test_ruff_would_say(tmp_path, code):
    (tmp_path / 'right.py').write_text('x = 1\n')
    assert not ruff_report(tmp_path)
    (tmp_path / 'wrong.py').write_text(code)
    assert 'wrong.py' in ruff_report(tmp_path)


# 00장


def find_definition(notebook, name):
    "클래스 `name`을 정의하는 셀의 차례. 없으면 None"
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == 'code' and find_class(cell, name):
            return i
    return None


def test_the_first_chapter_comes_to_the_point():
    notebook = read(NBS / '00_data.ipynb')
    assert len(notebook.cells) <= 50
    place = find_definition(notebook, 'CIFAR10DataModule')
    assert place is not None and place < 15


def test_definitions_are_found():
    cells = [new_markdown_cell('class A:'), new_code_cell('class A:\n    pass')]
    notebook = new_notebook(cells=cells)
    assert find_definition(notebook, 'A') == 1
    assert find_definition(notebook, 'B') is None


# 출력

TRUTH = r'[(\[]?(True|False)([,\s]+(True|False))*,?[)\]]?'


def whole_output(cell):
    "셀이 쓴 글 전체. 그림처럼 글이 아닌 것이 있으면 그것도 이어 적는다."
    texts = []
    for output in cell.outputs:
        data = output.get('data', {})
        texts.append(output.get('text') or data.get('text/plain', ''))
        texts += [kind for kind in data if kind != 'text/plain']
    return '\n'.join(texts).strip()


def bare_truths(notebook):
    "참인지 거짓인지만 보여 주는 셀. 무엇이 참인지 읽는 사람은 알 수 없다."
    cells = code_cells(notebook)
    return [cell.source for cell in cells if re.fullmatch(TRUTH, whole_output(cell))]


@each(STORY_PATHS)
def test_outputs_say_more_than_true(path):
    assert bare_truths(read(path)) == []


def cell_with_output(text, kind='text/plain'):
    result = new_output('execute_result', data={kind: text})
    return new_code_cell(text, outputs=[result])


@pytest.mark.parametrize('text', ['True', 'False', '(True, False)', '(True,)'])
def test_bare_truths_are_found(text):
    printed = new_code_cell(text, outputs=[new_output('stream', text=f'{text}\n')])
    for cell in (cell_with_output(text), printed):
        assert bare_truths(new_notebook(cells=[cell])) == [text]


@pytest.mark.parametrize('text', ['', "('같은가', True)", '1, True', 'True: 3장'])
def test_other_outputs_are_not_bare_truths(text):
    cells = [cell_with_output(text), cell_with_output('True', 'image/png')]
    assert bare_truths(new_notebook(cells=cells)) == []
