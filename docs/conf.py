"""문서 사이트의 설정. `make docs`가 `build.py`로 `nbs/`에서 `_docs/`를 만든다."""

import sys
from pathlib import Path

here = Path(__file__).parent
sys.path.insert(0, str(here))
from korean import KoreanSearch
from nbdev_format import SETTINGS as settings

project, author, release, language = (
    settings['title'],
    settings['author'],
    settings['version'],
    'ko',
)
copyright = settings['copyright']
extensions = ['myst_nb']
html_theme, html_title, html_baseurl = (
    'furo',
    settings['title'],
    settings['doc_host'] + settings['doc_baseurl'] + '/',
)
html_theme_options = dict(
    source_repository=settings['git_url'],
    source_branch=settings['branch'],
    source_directory='nbs/',
    top_of_page_buttons=[],
)
html_static_path, html_css_files = ['_static'], ['site.css']
html_favicon = '_static/icon.svg'
html_copy_source = html_show_sourcelink = html_use_index = False
locale_dirs, gettext_compact = [str(here / 'locale')], False
add_module_names = False
toc_object_entries = False  # API의 목차는 모듈까지만 보인다.
smartquotes = False  # 'cifar10' 같은 값이 둥근 따옴표로 바뀌지 않게 한다.
maximum_signature_line_length = 80
nb_code_prompt_show, nb_code_prompt_hide = '풀이 보기', '풀이 접기'
nb_execution_mode = 'off'  # 저장된 출력이 곧 문서이다.
nb_custom_formats = {'.ipynb': ['nbdev_format.read', {}]}
myst_enable_extensions = ['attrs_inline', 'colon_fence']
myst_heading_anchors = 3


def setup(app):
    app.add_search_language(KoreanSearch)
