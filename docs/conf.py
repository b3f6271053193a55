"""문서 사이트의 설정. `make docs`가 `nbs/`에서 `_docs/`를 만든다."""
import sys
from configparser import ConfigParser
from pathlib import Path

here = Path(__file__).parent
sys.path.insert(0, str(here))
config = ConfigParser()
config.read(here.parent / 'settings.ini', encoding='utf-8')
settings = config['DEFAULT']

project, author, release, language = settings['title'], settings['author'], settings['version'], 'ko'
copyright = settings['copyright']
extensions = ['myst_nb']
exclude_patterns = ['runs', 'data', '**.ipynb_checkpoints']
html_theme, html_title = 'furo', settings['title']
html_theme_options = dict(source_repository=settings['git_url'], source_branch=settings['branch'], source_directory='nbs/')
nb_execution_mode = 'off'  # 저장된 출력이 곧 문서이다.
nb_custom_formats = {'.ipynb': ['nbdev_format.read', {}]}
myst_heading_anchors = 3
