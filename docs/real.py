"""노트북을 진짜 사진으로 돌린 사본을 만든다.

    python docs/real.py _proc/real && make docs PAGES=_proc/real

저장소의 노트북은 장난감 그림의 출력만 지니고, 사이트의 사본만 진짜 사진을 보인다.
바꾸는 것은 데이터를 고르는 인자뿐이다: `source='toy'`와 `--data.source toy`.
그림이 없는 노트북은 장난감 그림의 숫자를 이야기하므로 저장된 출력을 그대로 쓴다.
보이는 셀이 진짜 사진에서 오류를 내는 노트북도 그대로 쓰고 그렇다고 알린다.
"""

import argparse
import os
import re
import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev_format import read_notebooks

NBS = Path(__file__).parent.parent / 'nbs'
NOTE = """
:::{{note}}
이 쪽의 코드와 출력은 {data} 돌린 것입니다.
저장소의 노트북과 Colab에서는 어디서나 곧바로 돌도록
장난감 그림(`source='toy'`)을 씁니다.
:::
"""
OFFICIAL = 'cifar10'  # 공식 파일의 `source`이자, 돌리는 폴더에서의 이름


def replaced(source, to):
    """데이터를 고르는 인자를 바꾼 셀.

    오류를 보이는 셀은 그 오류가 장난감 그림의 크기에 달렸으므로 그대로 둔다.
    """
    if re.search(r'^\s*try:', source, flags=re.M):
        return source
    python = f'source={to!r}, data_dir={OFFICIAL!r}'
    shell = f'--data.source {to} --data.data_dir {OFFICIAL}'
    source = source.replace("source='toy'", python)
    return re.sub(r'--data\.source toy\b', lambda _: shell, source)


def replace_all(notebook, to):
    "노트북의 코드를 바꾸고, 바뀐 셀이 있는지 돌려준다."
    changed = False
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            source = replaced(cell.source, to)
            changed |= source != cell.source
            cell.source = source
    return changed


def outputs(notebook):
    "(셀, 출력)"
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            for output in cell.outputs:
                yield cell, output


def has_pictures(notebook):
    return any('image/png' in out.get('data', {}) for _, out in outputs(notebook))


def execute(notebook, folder, seconds):
    """돌리고, 보이는 셀의 오류를 돌려준다.

    감춘 셀은 장난감 그림의 숫자를 확인하므로 틀려도 된다.
    """
    NotebookClient(
        notebook,
        timeout=seconds,
        allow_errors=True,
        record_timing=False,
        kernel_name='python3',
        resources={'metadata': {'path': str(folder)}},
    ).execute()
    return [
        f'{out.ename}: {out.evalue}'
        for cell, out in outputs(notebook)
        if out.output_type == 'error' and not cell.source.startswith('#| hide')
    ]


def link_data(work, given):
    """데이터로 가는 링크를 돌릴 폴더에 두고, 셀에 적을 `source`를 돌려준다.

    링크를 쓰므로 출력에 이 컴퓨터의 경로가 남지 않는다.
    """
    official = given.source == OFFICIAL
    target = given.data_dir if official else given.source
    link = work / (OFFICIAL if official else 'photos')
    os.makedirs(target, exist_ok=True)
    if not link.exists():
        link.symlink_to(os.path.abspath(target), target_is_directory=True)
    if official:
        from cifar_lit.parts.download import download_cifar10

        download_cifar10(given.data_dir, mirror=given.mirror or None)
    return link.name


def parse(args):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('output', type=Path, help='돌린 노트북을 둘 폴더')
    add('--source', default=OFFICIAL, help='cifar10 또는 사진 폴더')
    add('--data-dir', default='cifar10', help='공식 파일을 두는 폴더')
    add('--mirror', default=None, help='공식 서버 대신 받을 주소')
    only = '돌릴 노트북(00_data, parts/plots). 여러 번 줄 수 있고, 없으면 모두'
    add('--only', action='append', help=only)
    add('--seconds', type=int, default=3600, help='셀 하나에 주는 시간')
    return parser.parse_args(args)


def main(args=None):
    given = parse(args)
    work = given.output / 'work'
    work.mkdir(parents=True, exist_ok=True)
    to = link_data(work, given)
    data = '진짜 CIFAR-10으로' if to == OFFICIAL else '사진 폴더로'
    for name, notebook in read_notebooks(NBS).items():
        stored, copy = NBS / f'{name}.ipynb', given.output / f'{name}.ipynb'
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(stored, copy)
        wanted = not given.only or name in given.only
        if not (wanted and has_pictures(notebook) and replace_all(notebook, to)):
            continue
        errors = execute(notebook, work, given.seconds)
        if errors:
            advice = '진짜 사진에서 오류가 나서 저장된 출력을 씁니다'
            print(f'::warning file=nbs/{name}.ipynb::{advice}: {errors[0]}', flush=True)
            continue
        notebook.cells[0].source += NOTE.format(data=data)
        nbformat.write(notebook, copy)
        print(f'{name}: {data} 돌렸습니다.', flush=True)
    shutil.rmtree(work)


if __name__ == '__main__':
    main()
