"""문서 사이트를 만들어 진짜 브라우저로 연다."""

import ast
import base64
import configparser
import functools
import http.server
import io
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urljoin

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from PIL import Image

ROOT = Path(__file__).parent.parent
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / 'settings.ini', encoding='utf-8')
BLOB = '{user}/{repo}/blob/{branch}'.format(**CONFIG['DEFAULT'])
STORY = sorted(path.stem for path in (ROOT / 'nbs').glob('[0-9]*.ipynb'))
PARTS = sorted(f'parts/{path.stem}' for path in (ROOT / 'nbs/parts').glob('*.ipynb'))
PYTHON = {
    'kernelspec': {'name': 'python3', 'display_name': 'python3', 'language': 'python'},
    'language_info': {'name': 'python', 'pygments_lexer': 'ipython3'},
}
PAGES = [*STORY, *PARTS, 'index', 'api', 'search']

IDS = '[...document.querySelectorAll("[id]")].map(e => e.id)'
HREFS = '[...document.querySelectorAll("a[href]")].map(e => e.getAttribute("href"))'
BADGES = '[...document.querySelectorAll("article a.badge")].map(e => e.href)'
FOUND = '[...document.querySelectorAll("ul.search a")].map(e => e.href)'
NAMELESS = """
[...document.images]
  .filter(i => !i.alt.trim() || i.alt.endsWith(".png") || !i.naturalWidth)
  .map(i => i.src)
"""
BACKGROUNDS = """
[document.querySelector(".main"), document.body]
  .map(e => getComputedStyle(e).backgroundColor).join()
"""
SIDEBAR = """
[...document.querySelectorAll(".sidebar-tree > ul")].map(list => [
  list.previousElementSibling?.matches("p.caption")
    ? list.previousElementSibling.innerText : "",
  [...list.querySelectorAll("a")].map(e => e.href),
])
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def build(notebooks, at):
    "`make docs`와 같은 명령으로 만든 사이트"
    done = subprocess.run(
        [sys.executable, ROOT / 'docs/build.py', notebooks, at],
        capture_output=True,
        text=True,
        cwd=at.parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return at


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    return build(ROOT / 'nbs', tmp_path_factory.mktemp('site') / 'site')


@pytest.fixture(scope='session')
def site(folder):
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


@pytest.fixture
def open_page(browser, site):
    "쪽을 연다. 끝나면 콘솔의 오류, 실패한 요청, 밖으로 나간 요청이 없었는지 본다."
    faults, contexts = [], []

    def watch(page, address):
        def on_console(message):
            if message.type in ('error', 'warning'):
                faults.append(f'{address}: {message.text}')

        def on_response(response):
            if response.status >= 400:
                faults.append(f'{address}: {response.url} {response.status}')

        def on_request(request):
            if not request.url.startswith((site, 'data:')):
                faults.append(f'{address}: 밖으로 나간 요청 {request.url}')

        def on_failure(request):
            if request.failure != 'net::ERR_ABORTED':  # 받는 중에 쪽을 떠났다.
                faults.append(f'{address}: {request.url} {request.failure}')

        def on_error(error):
            faults.append(f'{address}: {error}')

        page.on('console', on_console)
        page.on('pageerror', on_error)
        page.on('response', on_response)
        page.on('request', on_request)
        page.on('requestfailed', on_failure)

    def open_at(address, width=1280, height=900, scheme='light'):
        viewport = {'width': width, 'height': height}
        context = browser.new_context(
            viewport=viewport, color_scheme=scheme, locale='ko-KR'
        )
        contexts.append(context)
        page = context.new_page()
        watch(page, address)
        page.goto(site + address, wait_until='load')
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert not faults


def squeezed(text):
    return ''.join(text.split())


def code_of(source):
    "쪽에 보일 코드: 지시와 nbval의 줄을 뺀다."
    lines = source.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(('#| ', '# NBVAL'))]
    return squeezed(''.join(kept))


def codes(name):
    cells = nbformat.read(ROOT / f'nbs/{name}.ipynb', 4).cells
    return [cell.source for cell in cells if cell.cell_type == 'code']


def home_of(name):
    "공개 이름을 정의하는 노트북"
    defines = re.compile(rf'#\| export\b.*^(class |def )?{name}\b', re.S | re.M)
    (home,) = {n for n in STORY + PARTS for code in codes(n) if defines.match(code)}
    return home


def test_no_path_of_this_machine(folder):
    local = rf'{re.escape(str(ROOT))}|{re.escape(str(folder.parent))}|'
    path_of_machine = re.compile(local + r'/(root|home|Users)/\w')
    pages = [
        path
        for path in folder.rglob('*')
        if path.is_file()
        and path.suffix in ('.html', '.js', '.txt')
        and '_static/scripts' not in str(path)
    ]
    assert len(pages) >= len(PAGES)
    told = [p for p in pages if path_of_machine.search(p.read_text(errors='ignore'))]
    assert not told


def test_the_same_site_twice(folder, tmp_path):
    def read(at):
        files = [path for path in at.rglob('*') if path.is_file()]
        return {path.relative_to(at): path.read_bytes() for path in files}

    first, second = read(folder), read(build(ROOT / 'nbs', tmp_path / 'again'))
    assert first.keys() == second.keys()
    assert not [name for name in first if first[name] != second[name]]


@pytest.mark.parametrize('name', PAGES)
def test_page(name, open_page, shots):
    for width, height, scheme in ((1280, 900, 'light'), (390, 844, 'dark')):
        page = open_page(f'{name}.html', width, height, scheme)
        assert page.evaluate('document.documentElement.lang') == 'ko'
        needed = page.evaluate('document.documentElement.scrollWidth')
        assert needed <= width, f'{width}px에서 옆으로 움직인다'
        numbers = re.findall(r'\d+', page.evaluate(BACKGROUNDS))
        color = [int(number) for number in numbers[-3:]]
        assert max(color) < 60 if scheme == 'dark' else min(color) > 220
        assert page.evaluate(NAMELESS) == []
        shot = f'site-{name.replace("/", "-")}-{width}-{scheme}.png'
        page.screenshot(path=shots / shot, full_page=name in ('index', 'search'))


def test_sidebar(open_page, site):
    "첫 쪽의 차례대로 두 묶음이 있고, 그다음이 API이다. 빠진 노트북은 없다."
    index = nbformat.read(ROOT / 'nbs/index.ipynb', 4)
    prose = '\n'.join(c.source for c in index.cells if c.cell_type == 'markdown')
    links = re.findall(rf'\]\(https://github\.com/{BLOB}/nbs/(\S+)\.ipynb\)', prose)
    listed = list(dict.fromkeys(links))
    story = [name for name in listed if name in STORY]
    parts = [name for name in listed if name in PARTS]
    assert (sorted(story), sorted(parts)) == (STORY, PARTS)
    for name in ('index', '00_data', PARTS[0]):
        page = open_page(f'{name}.html')
        shown = [
            [caption, [urldefrag(href)[0] for href in hrefs]]
            for caption, hrefs in page.evaluate(SIDEBAR)
        ]
        # 자기 쪽으로 가는 링크는 `#`이다.
        assert shown == [
            ['이야기', [f'{site}{name}.html' for name in story]],
            ['속 들여다보기', [f'{site}{name}.html' for name in parts]],
            ['', [f'{site}api.html']],
        ]


def test_parts_and_story_lead_to_each_other(open_page, site):
    "본문에서 장을 누르면 부품으로, 부품을 누르면 장으로 간다."
    pressed = 'article a[href*="{}"]'
    page = open_page('00_data.html')
    page.locator(pressed.format('parts/toy.html')).first.click()
    page.wait_for_url(f'{site}parts/toy.html*')
    assert page.locator('h1').inner_text().startswith('장난감 그림')
    page.goto(f'{site}parts/pictures.html')
    page.locator(pressed.format('../00_data.html')).first.click()
    page.wait_for_url(f'{site}00_data.html*')


def test_links(open_page, site, folder):
    links, ids = {}, {}
    for name in PAGES:
        address = f'{site}{name}.html'
        page = open_page(f'{name}.html')
        ids[address] = {*page.evaluate(IDS), ''}
        links[address] = page.evaluate(HREFS)
    broken = []
    for at, hrefs in links.items():
        for href in hrefs:
            to, anchor = urldefrag(urljoin(at, href))
            if not to.startswith(site):
                continue
            # 크기를 바꾼 그림은 그림 파일로 가는 링크가 된다.
            file = to.endswith('.png') and (folder / to.removeprefix(site)).is_file()
            if not file and unquote(anchor) not in ids.get(to, ()):
                broken.append((at, href))
    assert not broken
    hrefs = [href for at in links for href in links[at]]
    local = re.compile(rf'https://github\.com/{BLOB}/([^#]+)(?:#L(\d+)-L(\d+)|#.*)?$')
    files = [found.groups() for href in hrefs if (found := local.match(href))]
    assert len(files) > 80
    for path, first, last in files:
        lines = (ROOT / path).read_text().splitlines()
        assert last is None or 1 <= int(first) <= int(last) <= len(lines)


@pytest.mark.parametrize('name', STORY + PARTS)
def test_chapter(name, open_page):
    "배지와 소스 링크가 있고, 공개 코드는 보이고, 감춘 셀은 출력까지 없다."
    where = f'{BLOB}/nbs/{name}.ipynb'
    page = open_page(f'{name}.html')
    assert page.evaluate(BADGES) == [
        f'https://colab.research.google.com/github/{where}',
        f'https://github.com/{where}',
    ]
    shown = [squeezed(x) for x in page.locator('.cell_input').all_text_contents()]
    code = [source for source in codes(name) if source.strip()]
    hidden = [code_of(source) for source in code if source.startswith('#| hide')]
    assert hidden or name in PARTS  # 부품에는 감출 것이 없을 수도 있다.
    assert not {*hidden} & {*shown}
    assert not [text for text in shown if text.startswith('#|')]
    skipped = ('#| hide', '#| default_exp')
    assert shown == [code_of(s) for s in code if not s.startswith(skipped)]


@pytest.fixture(scope='session')
def small_folder(tmp_path_factory):
    "장 하나와 부품 하나로 만든 사이트. 셀의 갖가지 모습이 든다."
    folder = tmp_path_factory.mktemp('small')
    notebooks = folder / 'nbs'

    def write(name, *cells):
        path = notebooks / f'{name}.ipynb'
        path.parent.mkdir(parents=True, exist_ok=True)
        notebook = nbformat.v4.new_notebook(cells=list(cells), metadata=PYTHON)
        nbformat.write(notebook, path)

    def attached(color):
        packed = io.BytesIO()
        Image.new('RGB', (30, 20), color).save(packed, 'PNG')
        encoded = base64.b64encode(packed.getvalue()).decode()
        return {'그림 하나.png': {'image/png': encoded}}

    on_github = f'https://github.com/{BLOB}/nbs/00_story.ipynb'
    part_on_github = on_github.replace('00_story', 'parts/one')
    picture = '![{}](attachment:%EA%B7%B8%EB%A6%BC%20%ED%95%98%EB%82%98.png)'
    story = [
        new_markdown_cell('# 장\n\n> 한 줄'),
        new_markdown_cell(picture.format('빨간 그림'), attachments=attached('red')),
        new_markdown_cell(picture.format('파란 그림'), attachments=attached('blue')),
        new_markdown_cell('[부품](parts/one.ipynb#A의-뜻과-`B`), 식은 $x / 2$입니다.'),
        new_code_cell('# NBVAL_IGNORE_OUTPUT\nignored = 1'),
        new_code_cell(
            'print(2)',
            metadata={'tags': ['nbval-ignore-output']},
            outputs=[new_output('stream', text='2\n')],
        ),
        new_code_cell('folded = 3', metadata={'tags': ['hide-cell']}),
        new_code_cell('#| hide\nhidden = 4'),
        new_code_cell('!echo five \\\n    six\n!echo seven'),
    ]
    part = [
        new_markdown_cell('# 부품\n\n> 한 줄'),
        new_markdown_cell(f'[장](../00_story.ipynb), [저장소의 장]({on_github})'),
        new_markdown_cell('## A의 뜻과 `B`'),
        new_markdown_cell(picture.format('초록 그림'), attachments=attached('green')),
    ]
    listed = f'| [00 장]({on_github}) |\n|---|\n\n- [부품]({part_on_github})'
    write('00_story', *story)
    write('parts/one', *part)
    write('index', new_markdown_cell(f'# cifar_lit\n\n{listed}'))
    return build(notebooks, folder / 'site')


@pytest.fixture
def small_site(small_folder, browser):
    "작은 사이트의 쪽을 여는 함수"
    context = browser.new_context()
    page = context.new_page()
    asked = []
    page.on('request', lambda request: asked.append(request.url))

    def open_at(name):
        page.goto(f'{small_folder.as_uri()}/{name}.html', wait_until='load')
        return page

    yield open_at
    context.close()
    assert not [url for url in asked if not url.startswith(('file:', 'data:'))]


def test_attachments_are_shown(small_site):
    "이름이 같아도 셀마다 제 그림이 보인다."

    def middle(page, alt):
        shot = page.get_by_alt_text(alt).screenshot()
        picture = Image.open(io.BytesIO(shot)).convert('RGB')
        return picture.getpixel((15, 10))

    page = small_site('00_story')
    assert middle(page, '빨간 그림') == (255, 0, 0)
    assert middle(page, '파란 그림') == (0, 0, 255)
    assert middle(small_site('parts/one'), '초록 그림') == (0, 128, 0)


def test_links_of_every_kind(small_site):
    "상대 링크, 저장소의 주소, JupyterLab이 만드는 앵커가 모두 사이트 안으로 간다."

    def goes(name, text):
        page = small_site(name)
        page.locator('article').get_by_role('link', name=text, exact=True).click()
        page.wait_for_load_state()
        to = urldefrag(page.url)[0].split('/site/')[1]
        target = page.locator(':target > h2')
        return (to, target.inner_text()) if target.count() else to

    assert goes('index', '00 장') == '00_story.html'
    assert goes('index', '부품') == 'parts/one.html'
    to, heading = goes('00_story', '부품')
    assert to == 'parts/one.html' and heading.startswith('A의 뜻과 B')
    assert goes('parts/one', '장') == '00_story.html'
    assert goes('parts/one', '저장소의 장') == '00_story.html'


def test_cells_by_tag(small_site):
    "출력을 비교하지 않는 셀은 보통 셀이고, 풀이는 접혀 있고, 감춘 셀은 없다."
    page = small_site('00_story')
    cells = page.locator('.cell')
    text = page.locator('article').inner_text()
    assert 'NBVAL' not in text and 'hidden' not in text
    assert page.get_by_text('ignored = 1').is_visible()
    ordinary = cells.filter(has_text='print(2)')
    assert ordinary.locator('.cell_input').is_visible()
    assert ordinary.locator('.cell_output').inner_text().strip() == '2'
    solution = page.get_by_text('folded = 3')
    assert not solution.is_visible()
    page.get_by_text('풀이 보기').click()
    assert solution.is_visible()


def test_long_commands(small_site):
    "여러 줄에 걸친 명령에 잘못이라는 표시가 없다."
    command = small_site('00_story').locator('.cell', has_text='echo five')
    assert 'six' in command.inner_text()
    assert command.locator('.highlight .o').count() == 2  # 느낌표 둘
    assert command.locator('.err').count() == 0


def test_formulas(small_site):
    "식은 브라우저가 스스로 그리는 MathML이다."
    formula = small_site('00_story').locator('article math')
    assert squeezed(formula.text_content()) == 'x/2'
    assert formula.bounding_box()['width'] > 10


@pytest.mark.parametrize(
    'words, pages',
    [
        ('체크포인트', {'01_callbacks', '03_train', '04_evaluate'}),
        ('체크포인트에는', {'03_train'}),
        ('혼동 행렬', {'04_evaluate'}),
        ('콜백을', {'01_callbacks'}),
        ('증강', {'00_data', 'parts/augment'}),
        ('정규화', {'00_data', '05_share', 'parts/pictures'}),
        ('층', {'06_speed'}),
        ('LitModel', {'02_model', 'api'}),
        ('picture_draws', {home_of('picture_draws'), 'api'}),
    ],
)
def test_search(words, pages, open_page, site, shots):
    page = open_page(f'search.html?q={quote(words)}')
    page.get_by_role('heading', name='검색 결과', exact=True).wait_for()
    found = page.evaluate(FOUND)
    assert pages <= {x.removeprefix(site).split('.html')[0] for x in found}
    page.wait_for_load_state('networkidle')
    if words == '혼동 행렬':
        page.screenshot(path=shots / 'site-search-results.png')


def test_search_of_nothing(open_page):
    page = open_page(f'search.html?q={quote("없는낱말쀍")}')
    page.get_by_role('heading', name='검색 결과', exact=True).wait_for()
    assert page.locator('ul.search a').count() == 0


def test_index_cuts_particles():
    "색인하는 쪽(파이썬)만 따로: 조사와 합친 낱말이 앞부분으로도 색인된다."
    code = """
import json
from korean import KoreanSearch
words = KoreanSearch({}).split("검색어에는 층을 `LitModel`은 CIFAR10DataModule이")
print(json.dumps(words))
"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=ROOT / 'docs',
        check=True,
    )
    expected = {'검색', '검색어', '층', 'LitModel', 'CIFAR10DataModule'}
    assert expected <= {*json.loads(done.stdout)}


def test_api_names_everything(open_page):
    page = open_page('api.html')
    ids = {*page.evaluate('[...document.querySelectorAll("dt.sig")].map(e => e.id)')}
    for path in (ROOT / 'cifar_lit').rglob('[!_]*.py'):
        names = next(
            ast.literal_eval(node.value)
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Assign) and node.targets[0].id == '__all__'
        )
        module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
        assert {f'{module}.{name}' for name in names} <= ids
    dt = page.locator('[id="cifar_lit.parts.toy.toy_pictures"]')
    entry = page.locator('dl.py', has=dt).first
    text = entry.inner_text()
    for part in ('seed', 'int', '같은 값이면 같은 그림', '반환값', '라벨 int64 (n,)'):
        assert part in text
    links = entry.locator('dd a').evaluate_all(
        'all => all.map(e => e.getAttribute("href"))'
    )
    assert links[0] == 'parts/toy.html#def-parts-toy-toy-pictures'
    assert '/cifar_lit/parts/toy.py#L' in links[1]
