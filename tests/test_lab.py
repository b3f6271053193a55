"""JupyterLab에서 노트북을 열고 모든 셀을 돌린다.

기본은 가벼운 장 하나, `CIFAR_LIT_LAB=all`이면 모든 장과 부품.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from given import ENV, ROOT

NBS = ROOT / 'nbs'
PATHS = sorted(NBS.glob('*.ipynb')) + sorted(NBS.glob('parts/*.ipynb'))
NOTEBOOKS = [str(path.relative_to(NBS).with_suffix('')) for path in PATHS]
CHOSEN = NOTEBOOKS if os.environ.get('CIFAR_LIT_LAB') == 'all' else ['00_data']
SECONDS = 600  # 노트북 하나를 돌리는 데 주는 시간
LEFTOVERS = ('runs', 'data', 'wandb', '.ipynb_checkpoints', '.cifar_lit')
HOMES = (
    'HOME',
    'JUPYTER_CONFIG_DIR',
    'JUPYTER_DATA_DIR',
    'JUPYTER_RUNTIME_DIR',
    'IPYTHONDIR',
)

PANEL = '.jp-NotebookPanel:visible'
IDLE = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
ERROR_OUTPUT = (
    '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"], '
    '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"] '
    '.jp-mod-error'
)
IMAGES = """
[...document.querySelectorAll(".jp-OutputArea-output img")].map(
  i => [i.src.length + i.src.slice(-60), i.complete ? i.naturalWidth : -1]
)
"""


def code_cells(path):
    cells = nbformat.read(path, 4).cells
    return [cell for cell in cells if cell.cell_type == 'code' and cell.source.strip()]


def clear(path):
    "저장된 출력을 보고 돌았다고 여기지 않게 비운다."
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def start_lab(folder, port, home, log):
    "빈 설정으로 띄운 JupyterLab의 프로세스"
    options = [
        '--no-browser',
        '--ip=127.0.0.1',
        f'--port={port}',
        '--port-retries=0',
        '--allow-root',
        '--IdentityProvider.token=',
        f'--ServerApp.root_dir={folder}',
        '--LabApp.extension_manager=readonly',
        '--LabApp.news_url=',
        '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
    ]
    return subprocess.Popen(
        [sys.executable, '-m', 'jupyterlab', *options],
        cwd=folder,
        env={**ENV, **{name: str(home / name) for name in HOMES}},
        stdout=log,
        stderr=log,
    )


def answers(address):
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(f'{address}/api', timeout=2).close()
    except OSError:
        return False
    return True


def stop(server):
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()


@pytest.fixture
def lab(tmp_path):
    "JupyterLab의 주소와 그것이 연 폴더"
    folder = tmp_path / 'nbs'
    ignore = shutil.ignore_patterns(*LEFTOVERS)
    shutil.copytree(NBS, folder, ignore=ignore)
    for path in folder.rglob('*.ipynb'):
        clear(path)
    port, log_path = free_port(), tmp_path / 'log.txt'
    address, end = f'http://127.0.0.1:{port}', time.monotonic() + 60
    with open(log_path, 'w') as log:
        server = start_lab(folder, port, tmp_path / 'home', log)
        try:
            while not answers(address):
                alive = server.poll() is None and time.monotonic() < end
                assert alive, log_path.read_text()[-3000:]
                time.sleep(0.2)
            yield address, folder
        finally:
            stop(server)


def open_notebook(page, address, name):
    page.set_default_timeout(60_000)
    page.goto(f'{address}/lab/tree/{name}.ipynb?reset')
    page.locator(f'{PANEL} .jp-Cell').first.wait_for()
    # 커널이 정해지기 전에 돌리면 커널을 고르라는 창이 뜬다.
    kernel = page.locator(f'{PANEL} .jp-Toolbar-kernelName')
    kernel.get_by_text('Python 3 (ipykernel)').wait_for()
    page.locator(IDLE).first.wait_for(state='attached')


def run_all(page):
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_role('menuitem', name='Run All Cells', exact=True).click()


def errors_of(code):
    outputs = [output for cell in code for output in cell.outputs]
    failed = [output for output in outputs if output.output_type == 'error']
    return [f'{output.ename}: {output.evalue}' for output in failed]


def wait_until_done(page, path, shot):
    "끝난 노트북의 코드 셀. 화면은 보이는 셀만 그리므로 저장한 노트북에서 본다."
    end = time.monotonic() + SECONDS
    while True:
        page.wait_for_timeout(1500)
        page.keyboard.press('Control+s')
        page.wait_for_timeout(500)
        code = code_cells(path)
        left = [cell.source[:60] for cell in code if not cell.execution_count]
        if errors_of(code) or not left and page.locator(IDLE).count():
            return code
        if time.monotonic() > end:
            page.screenshot(path=shot)
            pytest.fail(f'{SECONDS}초 안에 끝나지 않았다: {left[:3]}')


def seen_pictures(page, errors):
    "끝까지 내려 보며 모은 그림. 보이는 오류는 `errors`에 있는 것이어야 한다."
    area = page.locator(f'{PANEL} .jp-WindowedPanel-outer')
    height = area.evaluate('e => e.scrollHeight')
    seen = set()
    for top in range(0, height + 1, 700):
        area.evaluate('(e, top) => e.scrollTop = top', top)
        page.wait_for_timeout(60)
        assert errors or not page.locator(ERROR_OUTPUT).count()
        for source, width in page.evaluate(IMAGES):
            assert width > 0 or width == -1, source[:80]  # -1은 아직 읽는 중
            seen.add(source)
    return seen


@pytest.mark.parametrize('name', CHOSEN)
def test_run_all_cells(name, lab, browser, shots):
    address, folder = lab
    shot = shots / f'lab-{name.replace("/", "-")}.png'
    context = browser.new_context(viewport={'width': 1280, 'height': 1000})
    page = context.new_page()
    open_notebook(page, address, name)
    run_all(page)
    code = wait_until_done(page, folder / f'{name}.ipynb', shot)
    errors = errors_of(code)
    outputs = [output for cell in code for output in cell.outputs]
    drawn = sum('image/png' in output.get('data', {}) for output in outputs)
    seen = seen_pictures(page, errors)
    page.screenshot(path=shot)
    context.close()
    assert errors == [] and len(seen) == drawn
    assert name != '00_data' or drawn > 2
