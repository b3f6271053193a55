"""노트북 폴더 하나에서 문서 사이트를 만든다: `python docs/build.py nbs _docs`"""

import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from api import api_page
from nbdev_format import read_notebooks, to_page
from sphinx.cmd.build import main


def write_pages(notebooks, folder):
    "Sphinx가 읽을 쪽과 그림을 쓴다."
    for name, notebook in notebooks.items():
        page, files = to_page(notebook, name)
        path = folder / f'{name}.ipynb'
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(page, path)
        for picture, content in files.items():
            (folder / picture).parent.mkdir(exist_ok=True)
            (folder / picture).write_bytes(content)
    (folder / 'api.md').write_text(api_page(notebooks), encoding='utf-8')


def build(source, output):
    # 만든 쪽이 nbs/에 남지 않게 따로 모은다.
    with tempfile.TemporaryDirectory() as folder:
        pages, site = Path(folder, 'pages'), Path(folder, 'site')
        pages.mkdir()
        write_pages(read_notebooks(source), pages)
        strict = ['-W', '-q', '--keep-going']
        places = ['-c', str(Path(__file__).parent), '-d', str(Path(folder, 'doctrees'))]
        failed = main([*strict, *places, '-b', 'html', str(pages), str(site)])
        if failed:
            return failed
        if Path(output).exists():
            shutil.rmtree(output)
        leftovers = shutil.ignore_patterns('_sources', '.buildinfo')
        shutil.copytree(site, output, ignore=leftovers)
        return 0


if __name__ == '__main__':
    sys.exit(build(*sys.argv[1:]))
