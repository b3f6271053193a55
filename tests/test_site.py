"""문서 사이트를 만들어 진짜 브라우저로 연다."""

import ast
import configparser
import functools
import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urljoin

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / 'settings.ini', encoding='utf-8')
BLOB = '{user}/{repo}/blob/{branch}'.format(**CONFIG['DEFAULT'])
CHAPTERS = sorted(p.stem for p in (ROOT / 'nbs').glob('*.ipynb'))
PAGES = [*CHAPTERS, 'api', 'search']


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    "`make docs`와 같은 명령으로 만든 사이트"
    at = tmp_path_factory.mktemp('site') / 'site'
    done = subprocess.run(
        [sys.executable, ROOT / 'docs/build.py', ROOT / 'nbs', at],
        capture_output=True,
        text=True,
        cwd=at.parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return at


@pytest.fixture(scope='session')
def site(folder):
    with http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Quiet, directory=folder)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


@pytest.fixture
def open_page(browser, site):
    "쪽을 연다. 끝나면 콘솔의 오류, 실패한 요청, 밖으로 나간 요청이 없었는지 본다."
    faults, contexts = [], []

    def open_at(address, width=1280, height=900, scheme='light'):
        contexts.append(
            browser.new_context(
                viewport={'width': width, 'height': height},
                color_scheme=scheme,
                locale='ko-KR',
            )
        )
        page = contexts[-1].new_page()
        page.on(
            'console',
            lambda m: (
                m.type in ('error', 'warning') and faults.append(f'{address}: {m.text}')
            ),
        )
        page.on('pageerror', lambda e: faults.append(f'{address}: {e}'))
        page.on(
            'requestfailed', lambda r: faults.append(f'{address}: {r.url} {r.failure}')
        )
        page.on(
            'response',
            lambda r: (
                r.status >= 400 and faults.append(f'{address}: {r.url} {r.status}')
            ),
        )
        page.on(
            'request',
            lambda r: (
                r.url.startswith((site, 'data:'))
                or faults.append(f'{address}: 밖으로 나간 요청 {r.url}')
            ),
        )
        page.goto(site + address, wait_until='load')
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert not faults


def test_no_path_of_this_machine(folder):
    assert not [
        p
        for p in folder.rglob('*')
        if p.is_file()
        and p.suffix in ('.html', '.js', '.txt')
        and '_static/scripts' not in str(p)
        and re.search(
            rf'{re.escape(str(ROOT))}|{re.escape(str(folder.parent))}|/(root|home|Users)/\w',
            p.read_text(errors='ignore'),
        )
    ]


def test_the_same_site_twice(folder, tmp_path):
    subprocess.run(
        [sys.executable, ROOT / 'docs/build.py', ROOT / 'nbs', tmp_path / 'again'],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    read = lambda at: {
        p.relative_to(at): p.read_bytes() for p in at.rglob('*') if p.is_file()
    }
    first, second = read(folder), read(tmp_path / 'again')
    assert (
        first.keys() == second.keys()
        and [name for name in first if first[name] != second[name]] == []
    )


@pytest.mark.parametrize('name', PAGES)
def test_page(name, open_page, shots):
    for width, height, scheme in ((1280, 900, 'light'), (390, 844, 'dark')):
        page = open_page(f'{name}.html', width, height, scheme)
        assert page.evaluate('document.documentElement.lang') == 'ko'
        assert page.evaluate('document.documentElement.scrollWidth') <= width, (
            f'{width}px에서 옆으로 움직인다'
        )
        red, green, blue = map(
            int,
            re.findall(
                r'\d+',
                page.evaluate(
                    'getComputedStyle(document.querySelector(".main")).backgroundColor + getComputedStyle(document.body).backgroundColor'
                ),
            )[-3:],
        )
        assert (
            (max(red, green, blue) < 60)
            if scheme == 'dark'
            else (min(red, green, blue) > 220)
        )
        assert (
            page.evaluate(
                '[...document.images].filter(i => !i.alt.trim() || i.alt.endsWith(".png") || !i.naturalWidth).map(i => i.src)'
            )
            == []
        )
        page.screenshot(
            path=shots / f'site-{name}-{width}-{scheme}.png',
            full_page=name not in ('api', *CHAPTERS[:-1]),
        )


def test_links(open_page, site):
    links, ids = {}, {}
    for name in PAGES:
        page = open_page(f'{name}.html')
        ids[f'{site}{name}.html'] = {
            *page.evaluate('[...document.querySelectorAll("[id]")].map(e => e.id)'),
            '',
        }
        links[f'{site}{name}.html'] = page.evaluate(
            '[...document.querySelectorAll("a[href]")].map(e => e.getAttribute("href"))'
        )
    broken = []
    for at, hrefs in links.items():
        for href in hrefs:
            to, anchor = urldefrag(urljoin(at, href))
            if to.startswith(site) and unquote(anchor) not in ids.get(to, ()):
                broken.append((at, href))
    assert not broken
    local = re.compile(rf'https://github\.com/{BLOB}/(.+?)(?:#L(\d+)-L(\d+))?$')
    files = [
        found.groups()
        for hrefs in links.values()
        for href in hrefs
        if (found := local.match(href))
    ]
    assert len(files) > 80
    for path, first, last in files:
        lines = (ROOT / path).read_text().splitlines()
        assert last is None or 1 <= int(first) <= int(last) <= len(lines)


@pytest.mark.parametrize('name', CHAPTERS[:-1])
def test_chapter(name, open_page):
    "배지와 소스 링크가 있고, 공개 코드는 보이고, 감춘 셀은 출력까지 없다."
    where = f'{BLOB}/nbs/{name}.ipynb'
    page = open_page(f'{name}.html')
    badges = page.evaluate(
        '[...document.querySelectorAll("article a.badge")].map(e => e.href)'
    )
    assert badges == [
        f'https://colab.research.google.com/github/{where}',
        f'https://github.com/{where}',
    ]
    strip = lambda text: ''.join(text.split())
    shown, cells = (
        [strip(text) for text in page.locator('.cell_input').all_text_contents()],
        nbformat.read(ROOT / f'nbs/{name}.ipynb', 4).cells,
    )
    code = [cell.source for cell in cells if cell.cell_type == 'code']
    body = lambda source: strip(
        ''.join(
            line
            for line in source.splitlines(True)
            if not line.startswith(('#| ', '# NBVAL'))
        )
    )
    hidden = [body(source) for source in code if source.startswith('#| hide')]
    assert (
        hidden
        and not {*hidden} & {*shown}
        and not [text for text in shown if text.startswith('#|')]
    )
    assert shown == [
        body(source)
        for source in code
        if source.strip() and not source.startswith(('#| hide', '#| default_exp'))
    ]


@pytest.mark.parametrize(
    'words, pages',
    [
        ('체크포인트', {'01_callbacks', '03_train', '04_evaluate'}),
        ('체크포인트에는', {'03_train'}),
        ('혼동 행렬', {'04_evaluate'}),
        ('콜백을', {'01_callbacks'}),
        ('증강', {'00_data'}),
        ('정규화', {'00_data', '05_share'}),
        ('층', {'06_speed'}),
        ('LitModel', {'02_model', 'api'}),
        ('picture_draws', {'00_data', 'api'}),
    ],
)
def test_search(words, pages, open_page, shots):
    page = open_page(f'search.html?q={quote(words)}')
    page.get_by_role('heading', name='검색 결과', exact=True).wait_for()
    found = page.evaluate(
        '[...document.querySelectorAll("ul.search a")].map(e => e.href.split("/").pop().split(".html")[0])'
    )
    assert pages <= {*found}
    page.wait_for_load_state('networkidle')
    if words == '혼동 행렬':
        page.screenshot(path=shots / 'site-search-results.png')


def test_search_of_nothing(open_page):
    page = open_page(f'search.html?q={quote("없는낱말쀍")}')
    page.get_by_role('heading', name='검색 결과', exact=True).wait_for()
    assert page.locator('ul.search a').count() == 0


def test_index_cuts_particles():
    "색인하는 쪽(파이썬)만 따로: 조사와 합친 낱말이 앞부분으로도 색인된다."
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            'import json; from korean import KoreanSearch; print(json.dumps(KoreanSearch({}).split("검색어에는 층을 `LitModel`은 CIFAR10DataModule이")))',
        ],
        capture_output=True,
        text=True,
        cwd=ROOT / 'docs',
        check=True,
    )
    assert {'검색', '검색어', '층', 'LitModel', 'CIFAR10DataModule'} <= {
        *json.loads(done.stdout)
    }


def test_api_names_everything(open_page):
    page = open_page('api.html')
    ids = {*page.evaluate('[...document.querySelectorAll("dt.sig")].map(e => e.id)')}
    for path in (ROOT / 'cifar_lit').glob('[!_]*.py'):
        names = next(
            ast.literal_eval(x.value)
            for x in ast.parse(path.read_text()).body
            if isinstance(x, ast.Assign) and x.targets[0].id == '__all__'
        )
        assert {f'cifar_lit.{path.stem}.{name}' for name in names} <= ids
    entry = page.locator(
        'dl.py', has=page.locator('[id="cifar_lit.data.toy_pictures"]')
    ).first
    text = entry.inner_text()
    assert all(
        part in text
        for part in (
            'seed',
            'int',
            '같은 값이면 같은 그림',
            '반환값',
            '라벨 int64 (n,)',
        )
    )
    links = entry.locator('dd a').evaluate_all(
        'all => all.map(e => e.getAttribute("href"))'
    )
    assert (
        links[0] == '00_data.html#def-data-toy-pictures'
        and '/cifar_lit/data.py#L' in links[1]
    )
