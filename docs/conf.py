"""문서 사이트의 설정. `make docs`가 `build.py`로 `nbs/`에서 `_docs/`를 만든다."""

from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from ipython_pygments_lexers import IPython3Lexer
from korean import KoreanSearch
from nbdev_format import SETTINGS
from pygments.lexer import bygroups, inherit, using
from pygments.lexers import BashLexer
from pygments.token import Operator, Text

project = SETTINGS['title']
author = SETTINGS['author']
copyright = SETTINGS['copyright']
release = SETTINGS['version']
language = 'ko'
locale_dirs = [str(Path(__file__).parent / 'locale')]
gettext_compact = False

extensions = ['myst_nb']
nb_execution_mode = 'off'  # 저장된 출력이 곧 문서이다.
nb_code_prompt_show = '풀이 보기'
nb_code_prompt_hide = '풀이 접기'
myst_enable_extensions = ['attrs_inline', 'colon_fence', 'dollarmath']
myst_heading_anchors = 3
smartquotes = False  # 'cifar10' 같은 값이 둥근 따옴표로 바뀌지 않게 한다.

html_theme = 'furo'
html_title = SETTINGS['title']
html_baseurl = SETTINGS['doc_host'] + SETTINGS['doc_baseurl'] + '/'
html_theme_options = {
    'source_repository': SETTINGS['git_url'],
    'source_branch': SETTINGS['branch'],
    'source_directory': 'nbs/',
    'top_of_page_buttons': [],
}
html_static_path = ['_static']
html_css_files = ['site.css']
html_favicon = '_static/icon.svg'
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_math_renderer = 'mathml'  # MathJax는 바깥의 스크립트를 부른다.

add_module_names = False
toc_object_entries = False  # API의 목차는 모듈까지만 보인다.
maximum_signature_line_length = 80


def _inline_math(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def _block_math(translator, node):
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    raise SkipNode


class NotebookLexer(IPython3Lexer):
    "`\\`로 여러 줄에 걸친 `!명령`도 색칠한다."

    command = bygroups(Operator, using(BashLexer), Text)
    tokens = {'root': [(r'(!)((?:.*\\\n)+.+)(\n)', command), inherit]}


def setup(app):
    app.add_search_language(KoreanSearch)
    app.add_lexer('ipython3', NotebookLexer)
    app.add_html_math_renderer('mathml', (_inline_math, None), (_block_math, None))
