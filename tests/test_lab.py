"""JupyterLab에서 장을 열고 모든 셀을 돌린다. 기본은 가벼운 장 하나, `CIFAR_LIT_LAB=all`이면 모든 장."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from conftest import ENV, ROOT

CHAPTERS = sorted(p.stem for p in (ROOT / 'nbs').glob('*.ipynb'))
CHOSEN = CHAPTERS if os.environ.get('CIFAR_LIT_LAB') == 'all' else ['00_data']
SECONDS = 600  # 한 장을 돌리는 데 주는 시간


@pytest.fixture
def lab(tmp_path):
    "빈 설정으로 띄운 JupyterLab의 주소와 그것이 연 폴더"
    folder = tmp_path / 'nbs'
    shutil.copytree(
        ROOT / 'nbs',
        folder,
        ignore=shutil.ignore_patterns(
            'runs', 'data', 'wandb', '.ipynb_checkpoints', '.cifar_lit'
        ),
    )
    for path in folder.glob(
        '*.ipynb'
    ):  # 저장된 출력을 보고 돌았다고 여기지 않게 비운다.
        notebook = nbformat.read(path, 4)
        for cell in notebook.cells:
            if cell.cell_type == 'code':
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    home = {
        name: str(tmp_path / 'home' / name)
        for name in (
            'HOME',
            'JUPYTER_CONFIG_DIR',
            'JUPYTER_DATA_DIR',
            'JUPYTER_RUNTIME_DIR',
            'IPYTHONDIR',
        )
    }
    with open(tmp_path / 'log.txt', 'w') as log:
        server = subprocess.Popen(
            [
                sys.executable,
                '-m',
                'jupyterlab',
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
            ],
            cwd=folder,
            env={**ENV, **home},
            stdout=log,
            stderr=log,
        )
        try:
            address, end = f'http://127.0.0.1:{port}', time.monotonic() + 60
            while True:
                try:
                    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                        f'{address}/api', timeout=2
                    ).close()
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < end, (
                        tmp_path / 'log.txt'
                    ).read_text()[-3000:]
                    time.sleep(0.2)
            yield address, folder
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.mark.parametrize('name', CHOSEN)
def test_run_all_cells(name, lab, browser, shots):
    address, folder = lab
    context = browser.new_context(viewport={'width': 1280, 'height': 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f'{address}/lab/tree/{name}.ipynb?reset')
    page.locator('.jp-NotebookPanel:visible .jp-Cell').first.wait_for()
    page.locator('.jp-NotebookPanel:visible .jp-Toolbar-kernelName').get_by_text(
        'Python 3 (ipykernel)'
    ).wait_for()  # 커널이 정해지기 전에 돌리면 커널을 고르라는 창이 뜬다.
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').first.wait_for(
        state='attached'
    )
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_role('menuitem', name='Run All Cells', exact=True).click()
    path = folder / f'{name}.ipynb'
    end = time.monotonic() + SECONDS
    while True:  # 화면은 보이는 셀만 그리므로 저장한 노트북으로 끝났는지 본다.
        page.wait_for_timeout(1500)
        page.keyboard.press('Control+s')
        page.wait_for_timeout(500)
        code = [
            cell
            for cell in nbformat.read(path, 4).cells
            if cell.cell_type == 'code' and cell.source.strip()
        ]
        if (
            [out for cell in code for out in cell.outputs if out.output_type == 'error']
            or all(cell.execution_count for cell in code)
            and page.locator(
                '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
            ).count()
        ):
            break
        if time.monotonic() > end:
            page.screenshot(path=shots / f'lab-{name}.png')
            pytest.fail(
                f'{SECONDS}초 안에 끝나지 않았다: '
                + str(
                    [cell.source[:60] for cell in code if not cell.execution_count][:3]
                )
            )
    errors = []
    for cell in code:
        errors += [
            f'{out.ename}: {out.evalue}'
            for out in cell.outputs
            if out.output_type == 'error'
        ]
    drawn = sum(
        'image/png' in getattr(out, 'data', {}) for cell in code for out in cell.outputs
    )
    area = page.locator('.jp-NotebookPanel:visible .jp-WindowedPanel-outer')
    seen, height = set(), area.evaluate('e => e.scrollHeight')
    for top in range(0, height + 1, 700):  # 끝까지 내려 보며 그림과 오류를 모은다.
        area.evaluate('(e, top) => e.scrollTop = top', top)
        page.wait_for_timeout(60)
        assert (
            not page.locator(
                '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"], .jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"] .jp-mod-error'
            ).count()
            or errors
        )
        for source, width in page.evaluate(
            '[...document.querySelectorAll(".jp-OutputArea-output img")].map(i => [i.src.length + i.src.slice(-60), i.complete ? i.naturalWidth : -1])'
        ):
            if width != -1:
                assert width > 0, source[:80]
            seen.add(source)
    page.screenshot(path=shots / f'lab-{name}.png')
    context.close()
    assert errors == [] and len(seen) == drawn
    assert name != '00_data' or drawn > 2
