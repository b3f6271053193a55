"""공개 이름의 API 문서. 모듈의 소스와 그 주석(docments)을 읽으므로 torch를 불러오지 않는다.

Sphinx의 autodoc은 매개변수의 주석을 모르고, fastcore의 docments는 타입이 없는 반환값의 주석(`): # …`)을 버린다."""

import ast
import io
import re
import tokenize
from pathlib import Path

import nbformat
from nbdev_format import GITHUB, SETTINGS, definitions, label

LIBRARY = Path(__file__).parent.parent / SETTINGS['lib_path']


def _name(node):
    return getattr(node, 'name', None) or node.targets[0].id


def _comments(source):
    return {
        token.start[0]: token.string.lstrip('# ')
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }


def _code(text):
    return f'`{text}`'.replace('|', r'\|') if text else ''


def _parameters(function, comments, skip):
    "(이름, 타입, 기본값, 뜻)과 반환값의 타입, 뜻"
    a = function.args
    plain = a.posonlyargs + a.args
    defaults = dict(zip([x.arg for x in plain][::-1], a.defaults[::-1])) | {
        x.arg: d for x, d in zip(a.kwonlyargs, a.kw_defaults) if d
    }
    order = (
        [('', x) for x in plain]
        + [('*', a.vararg)] * bool(a.vararg)
        + [('', x) for x in a.kwonlyargs]
        + [('**', a.kwarg)] * bool(a.kwarg)
    )
    header, rows = function.lineno, []
    for star, x in order[skip:]:
        default = defaults.get(x.arg)
        last = max(x.end_lineno, default.end_lineno if default else 0)
        alone = (
            last > function.lineno
            and sum(max(y.end_lineno, 0) == x.end_lineno for _, y in order) == 1
        )
        rows.append(
            (
                star + x.arg,
                ast.unparse(x.annotation) if x.annotation else '',
                ast.unparse(default) if default else '',
                comments.get(last, '') if alone else '',
            )
        )
        header = max(header, last + 1) if alone else header
    meaning = next(
        (
            comments[n]
            for n in range(header, function.body[0].lineno)
            if n in comments and n > function.lineno
        ),
        '',
    )
    return rows, (ast.unparse(function.returns) if function.returns else '', meaning)


def _table(rows, returned):
    lines = []
    if any(row[1] or row[3] for row in rows):
        lines = ['| 매개변수 | 타입 | 기본값 | 뜻 |', '|---|---|---|---|']
        lines += [
            f'| `{name}` | {_code(kind)} | {_code(default)} | {meaning.replace("|", chr(92) + "|")} |'
            for name, kind, default, meaning in rows
        ]
    if any(returned):
        lines += [
            '',
            '**반환값**: ' + ', '.join(filter(None, [_code(returned[0]), returned[1]])),
        ]
    return '\n'.join(lines)


def _signature(function, skip):
    args = ast.parse(f'def f({ast.unparse(function.args)}): 0').body[0].args
    if skip:
        (args.posonlyargs or args.args).pop(0)
    for x in ast.walk(args):
        if isinstance(x, ast.arg):
            x.annotation = None  # 타입은 아래의 표에 있다.
    return f'({ast.unparse(args)})'


def _directive(kind, signature, body, fence, module=''):
    return (
        f'{fence}{{py:{kind}}} {signature}\n'
        + (f':module: {module}\n' if module else '')
        + f'\n{body.strip()}\n{fence}\n'
    )


def _members(node, comments, module):
    fields = (
        [x for x in node.body if isinstance(x, ast.AnnAssign)]
        if any('dataclass' in ast.unparse(d) for d in node.decorator_list)
        else []
    )
    rows = [
        (
            x.target.id,
            ast.unparse(x.annotation),
            ast.unparse(x.value)
            if x.value and 'field(' not in ast.unparse(x.value)
            else '',
            comments.get(x.end_lineno, ''),
        )
        for x in fields
    ]
    init = next(
        (
            x
            for x in node.body
            if isinstance(x, ast.FunctionDef) and x.name == '__init__'
        ),
        None,
    )
    if init:
        rows, _ = _parameters(init, comments, 1)
    signature = (
        _signature(init, 1)
        if init
        else f'({", ".join(row[0] + ("=" + row[2] if row[2] else "") for row in rows)})'
        if rows
        else ''
    )
    methods = [
        x
        for x in node.body
        if isinstance(x, ast.FunctionDef)
        and not x.name.startswith('_')
        and ast.get_docstring(x)
    ]
    bodies = []
    for x in methods:
        kind = (
            'property'
            if any(ast.unparse(d).endswith('property') for d in x.decorator_list)
            else 'method'
        )
        static = any(ast.unparse(d) == 'staticmethod' for d in x.decorator_list)
        body = (
            ast.get_docstring(x)
            + '\n\n'
            + _table(*_parameters(x, comments, 0 if static else 1))
        )
        bodies.append(
            _directive(
                kind,
                x.name
                + ('' if kind == 'property' else _signature(x, 0 if static else 1)),
                body,
                '`````',
            )
        )
    return signature, _table(rows, ('', '')), '\n'.join(bodies)


def _entry(node, source, comments, module, path, where):
    name = _name(node)
    chapter = f'[{where[name]}](#{label(path.stem, name)})' if name in where else ''
    links = f'{chapter} · [소스]({GITHUB}/{SETTINGS["lib_path"]}/{path.name}#L{node.lineno}-L{node.end_lineno})'
    if isinstance(node, ast.ClassDef):
        signature, table, methods = _members(node, comments, module)
        return _directive(
            'class',
            name + signature,
            '\n\n'.join([ast.get_docstring(node) or '', table, links, methods]),
            '``````',
            module,
        )
    if isinstance(node, ast.FunctionDef):
        body = '\n\n'.join(
            [
                ast.get_docstring(node) or '',
                _table(*_parameters(node, comments, 0)),
                links,
            ]
        )
        return _directive(
            'function', name + _signature(node, 0), body, '``````', module
        )
    value = ast.unparse(node.value)
    body = (
        f'```python\n{value}\n```'
        if len(value) > 70 or isinstance(node.value, ast.Dict)
        else f'`{value}`'
    ) + f'\n\n{links}'
    return _directive('data', name, body, '``````', module)


def public(path):
    "모듈의 `__all__`과, 그 이름들을 정의하는 문장"
    tree = ast.parse(path.read_text(encoding='utf-8')).body
    named = {
        _name(x): x
        for x in tree
        if isinstance(x, (ast.ClassDef, ast.FunctionDef))
        or isinstance(x, ast.Assign)
        and isinstance(x.targets[0], ast.Name)
    }
    return [named[name] for name in ast.literal_eval(named['__all__'].value)]


def modules():
    "장의 순서대로 (모듈 파일, 노트북 이름)"
    found = [
        (path, re.search(r'nbs/(\w+)\.ipynb', path.read_text(encoding='utf-8')))
        for path in LIBRARY.glob('[!_]*.py')
    ]
    return sorted(
        ((path, notebook[1]) for path, notebook in found if notebook),
        key=lambda pair: pair[1],
    )


def page(notebooks):
    text = [
        '# API',
        f'`{SETTINGS["lib_path"]}`의 공개 이름입니다.',
        '모듈마다 그것을 만드는 장이 있고, 이름마다 그것을 정의하는 셀로 가는 링크가 있습니다.',
    ]
    for path, stem in modules():
        cells, where, heading = (
            nbformat.read(Path(notebooks, f'{stem}.ipynb'), 4).cells,
            {},
            '',
        )
        title = re.match('# (.*)', cells[0].source)[1]
        for cell in cells:
            if cell.cell_type == 'markdown':
                heading = (
                    re.findall(r'^#+ (.*)', cell.source, flags=re.M) or [heading]
                )[-1]
            else:
                where |= {
                    name: f'{stem[:2]}장 {heading}' for name in definitions(cell.source)
                }
        source, module = (
            path.read_text(encoding='utf-8'),
            f'{SETTINGS["lib_path"]}.{path.stem}',
        )
        text += [
            f'## {module}',
            f'{ast.get_docstring(ast.parse(source)) or ""}',
            f'장: [{stem[:2]} {title}]({stem}.ipynb)',
        ]
        text += [
            ' · '.join(
                f'[`{name}`](#{module}.{name})' for name in map(_name, public(path))
            )
        ]
        text += [
            _entry(node, source, _comments(source), module, path, where)
            for node in public(path)
        ]
    return '\n\n'.join(text) + '\n'
