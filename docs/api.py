"""공개 이름의 API 문서. 모듈의 소스와 그 주석(docments)을 읽으므로 torch가 필요 없다.

Sphinx의 autodoc은 매개변수의 주석을 모르고,
fastcore의 docments는 타입이 없는 반환값의 주석(`): # …`)을 버린다.
"""

import ast
import io
import tokenize
from pathlib import Path

from nbdev_format import (
    GITHUB,
    INDEX,
    INSIDE,
    PARTS,
    SETTINGS,
    STORY,
    definitions,
    groups,
    headings,
    label,
    module_of,
)

LIBRARY = SETTINGS['lib_path']
ROOT = Path(__file__).parent.parent
OUTER, INNER = '`' * 6, '`' * 5  # 클래스의 울타리 안에 메서드의 울타리가 든다.


def _name(node):
    return getattr(node, 'name', None) or node.targets[0].id


def _comments(source):
    return {
        token.start[0]: token.string.lstrip('# ')
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }


def _escaped(text):
    return text.replace('|', r'\|')


def _code(text):
    return f'`{_escaped(text)}`' if text else ''


def _unparsed(node):
    return ast.unparse(node) if node else ''


def _starred(arguments):
    "받는 순서대로 (별표, 인자)"
    plain = [('', x) for x in arguments.posonlyargs + arguments.args]
    named = [('', x) for x in arguments.kwonlyargs]
    rest = [('*', arguments.vararg)] if arguments.vararg else []
    options = [('**', arguments.kwarg)] if arguments.kwarg else []
    return plain + rest + named + options


def _defaults(arguments):
    plain = [x.arg for x in arguments.posonlyargs + arguments.args]
    named = [x.arg for x in arguments.kwonlyargs]
    last = plain[len(plain) - len(arguments.defaults) :]
    given = dict(zip(last, arguments.defaults))
    return given | {x: d for x, d in zip(named, arguments.kw_defaults) if d}


def _parameters(function, comments, skip):
    "(이름, 타입, 기본값, 뜻)과 반환값의 (타입, 뜻)"
    starred, defaults = _starred(function.args), _defaults(function.args)
    ends = [argument.end_lineno for _, argument in starred]
    rows, header = [], function.lineno
    for star, argument in starred[skip:]:
        default = defaults.get(argument.arg)
        last = max(x.end_lineno for x in (argument, default) if x)
        # 한 줄에 인자가 하나일 때만 그 줄의 주석이 그 인자의 뜻이다.
        alone = last > function.lineno and ends.count(argument.end_lineno) == 1
        meaning = comments.get(last, '') if alone else ''
        kind = _unparsed(argument.annotation)
        rows.append((star + argument.arg, kind, _unparsed(default), meaning))
        if alone:
            header = max(header, last + 1)
    after = range(max(header, function.lineno + 1), function.body[0].lineno)
    meaning = next((comments[line] for line in after if line in comments), '')
    return rows, (_unparsed(function.returns), meaning)


def _table(rows, returned):
    lines = []
    if any(kind or meaning for _, kind, _, meaning in rows):
        lines = ['| 매개변수 | 타입 | 기본값 | 뜻 |', '|---|---|---|---|']
        for name, kind, default, meaning in rows:
            cells = [f'`{name}`', _code(kind), _code(default), _escaped(meaning)]
            lines.append(f'| {" | ".join(cells)} |')
    if any(returned):
        kind, meaning = returned
        both = [text for text in (_code(kind), meaning) if text]
        lines += ['', f'**반환값**: {", ".join(both)}']
    return '\n'.join(lines)


def _signature(function, skip):
    "타입은 표에 있으므로 뺀다."
    arguments = ast.parse(f'def f({ast.unparse(function.args)}): 0').body[0].args
    if skip:
        (arguments.posonlyargs or arguments.args).pop(0)
    for node in ast.walk(arguments):
        if isinstance(node, ast.arg):
            node.annotation = None
    return f'({ast.unparse(arguments)})'


def _directive(kind, signature, body, fence, module=''):
    option = f':module: {module}\n' if module else ''
    return f'{fence}{{py:{kind}}} {signature}\n{option}\n{body.strip()}\n{fence}\n'


def _decorated(node, *names):
    return any(ast.unparse(d).endswith(names) for d in node.decorator_list)


def _fields(node, comments):
    "데이터클래스의 (이름, 타입, 기본값, 뜻)"
    rows = []
    for field in node.body:
        if isinstance(field, ast.AnnAssign):
            default = _unparsed(field.value)
            default = '' if 'field(' in default else default
            kind, meaning = (
                ast.unparse(field.annotation),
                comments.get(field.end_lineno),
            )
            rows.append((field.target.id, kind, default, meaning or ''))
    return rows


def _constructor(node, comments):
    "클래스의 서명과 매개변수의 표"
    methods = [x for x in node.body if isinstance(x, ast.FunctionDef)]
    for method in methods:
        if method.name == '__init__':
            rows, _ = _parameters(method, comments, 1)
            return _signature(method, 1), _table(rows, ('', ''))
    if not any('dataclass' in ast.unparse(d) for d in node.decorator_list):
        return '', ''
    rows = _fields(node, comments)
    given = [name + (default and f'={default}') for name, _, default, _ in rows]
    return f'({", ".join(given)})', _table(rows, ('', ''))


def _method(method, comments):
    skip = 0 if _decorated(method, 'staticmethod') else 1
    table = _table(*_parameters(method, comments, skip))
    body = f'{ast.get_docstring(method)}\n\n{table}'
    if _decorated(method, 'property'):
        return _directive('property', method.name, body, INNER)
    signature = method.name + _signature(method, skip)
    return _directive('method', signature, body, INNER)


def _class(node, comments, links):
    signature, table = _constructor(node, comments)
    methods = [
        _method(method, comments)
        for method in node.body
        if isinstance(method, ast.FunctionDef)
        and not method.name.startswith('_')
        and ast.get_docstring(method)
    ]
    described = [ast.get_docstring(node) or '', table, links, '\n'.join(methods)]
    return 'class', node.name + signature, '\n\n'.join(described)


def _function(node, comments, links):
    table = _table(*_parameters(node, comments, 0))
    described = [ast.get_docstring(node) or '', table, links]
    return 'function', node.name + _signature(node, 0), '\n\n'.join(described)


def _data(node, links):
    value = ast.unparse(node.value)
    long = len(value) > 70 or isinstance(node.value, ast.Dict)
    shown = f'```python\n{value}\n```' if long else f'`{value}`'
    return 'data', _name(node), f'{shown}\n\n{links}'


def _entry(node, comments, module, links):
    if isinstance(node, ast.ClassDef):
        kind, signature, body = _class(node, comments, links)
    elif isinstance(node, ast.FunctionDef):
        kind, signature, body = _function(node, comments, links)
    else:
        kind, signature, body = _data(node, links)
    return _directive(kind, signature, body, OUTER, module)


def _public(source):
    "모듈의 `__all__`이 드는 이름들을 정의하는 문장"
    named = {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            named[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] = node
    return [named[name] for name in ast.literal_eval(named['__all__'].value)]


def _headings_of_names(notebook, title):
    "이름마다 그것을 정의하는 셀 위의 제목"
    where, heading = {}, title
    for cell in notebook.cells:
        if cell.cell_type == 'markdown':
            heading = (headings(cell.source) or [heading])[-1]
        else:
            where |= dict.fromkeys(definitions(cell.source), heading)
    return where


def _section(name, notebook, short):
    "노트북 하나가 만드는 모듈"
    module = module_of(notebook)
    path = f'{LIBRARY}/{module.replace(".", "/")}.py'
    source = (ROOT / path).read_text(encoding='utf-8')
    comments, nodes = _comments(source), _public(source)
    title = headings(notebook.cells[0].source)[0]
    where = _headings_of_names(notebook, title)
    qualified = f'{LIBRARY}.{module}'
    if name.startswith(PARTS):
        home = f'{INSIDE}: [{short}]({name}.ipynb)'
        where = {
            defined: heading if heading == title else f'{short}: {heading}'
            for defined, heading in where.items()
        }
    else:
        home = f'장: [{name[:2]} {title}]({name}.ipynb)'
        where = {x: f'{name[:2]}장 {heading}' for x, heading in where.items()}
    names = [f'[`{_name(node)}`](#{qualified}.{_name(node)})' for node in nodes]
    blocks = [f'## {qualified}', ast.get_docstring(ast.parse(source)) or '', home]
    blocks.append(' · '.join(names))
    for node in nodes:
        lines = f'#L{node.lineno}-L{node.end_lineno}'
        links = [f'[소스]({GITHUB}/{path}{lines})']
        if _name(node) in where:
            anchor = label(module, _name(node))
            links.insert(0, f'[{where[_name(node)]}](#{anchor})')
        blocks.append(_entry(node, comments, qualified, ' · '.join(links)))
    return blocks


def api_page(notebooks):
    blocks = [
        '# API',
        f'`{LIBRARY}`의 공개 이름입니다.',
        '모듈마다 그것을 만드는 노트북이 있고, '
        '이름마다 그것을 정의하는 셀로 가는 링크가 있습니다.',
    ]
    listed = groups(notebooks[INDEX])
    for name, short in (listed[STORY] | listed[INSIDE]).items():
        if module_of(notebooks[name]):
            blocks += _section(name, notebooks[name], short)
    return '\n\n'.join(blocks) + '\n'
