"""노트북 폴더 하나에서 문서 사이트를 만든다: `python docs/build.py nbs _docs`"""

import shutil
import sys
import tempfile
from pathlib import Path

from api import page
from sphinx.cmd.build import main


def build(notebooks, output):
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # 만든 쪽이 nbs/에 남지 않게 따로 모은다.
        pages = Path(folder, 'pages')
        pages.mkdir()
        for path in sorted(Path(notebooks).glob('*.ipynb')):
            shutil.copy(path, pages)
        (pages / 'api.md').write_text(page(pages), encoding='utf-8')
        site, here = Path(folder, 'site'), Path(__file__).parent
        failed = main(
            [
                '-W',
                '-q',
                '--keep-going',
                '-b',
                'html',
                '-c',
                str(here),
                '-d',
                str(Path(folder, 'doctrees')),
                str(pages),
                str(site),
            ]
        )
        if failed:
            return failed
        if Path(output).exists():
            shutil.rmtree(output)
        shutil.copytree(
            site, output, ignore=shutil.ignore_patterns('_sources', '.buildinfo')
        )
        return 0


if __name__ == '__main__':
    sys.exit(build(*sys.argv[1:]))
