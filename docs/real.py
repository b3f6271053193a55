"""장을 진짜 사진으로 돌린 사본을 만든다: `python docs/real.py _proc/real` 다음에 `make docs PAGES=_proc/real`

저장소의 노트북은 장난감 그림의 출력만 지니고, 사이트의 사본만 진짜 사진을 보인다.
바꾸는 것은 데이터를 고르는 인자뿐이다: `source='toy'`와 `--data.source toy`.
그림이 없는 장은 장난감 그림에서 얻은 숫자를 이야기하므로 저장된 출력을 그대로 쓴다.
보이는 셀이 진짜 사진에서 오류를 내는 장도 그대로 쓰고 그렇다고 알린다.
"""

import argparse
import os
import re
import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NBS = Path(__file__).parent.parent / 'nbs'
NOTE = """
:::{{note}}
이 쪽의 코드와 출력은 {data} 돌린 것입니다.
저장소의 노트북과 Colab에서는 어디서나 곧바로 돌도록 `source='toy'`, 곧 장난감 그림을 씁니다.
:::
"""


def replaced(source, to, data_dir):
    "데이터를 고르는 인자를 바꾼 셀. 오류를 보이는 셀은 그 오류가 장난감 그림의 크기에 달렸으므로 그대로 둔다."
    if re.search(r'^\s*try:', source, flags=re.M):
        return source
    source = re.sub(
        r"source='toy'", lambda _: f'source={to!r}, data_dir={data_dir!r}', source
    )
    return re.sub(
        r'--data\.source toy\b',
        lambda _: f'--data.source {to} --data.data_dir {data_dir}',
        source,
    )


def has_pictures(notebook):
    return any(
        'image/png' in out.get('data', {})
        for cell in notebook.cells
        if cell.cell_type == 'code'
        for out in cell.outputs
    )


def shown(cell):
    return not cell.source.startswith('#| hide')


def execute(notebook, folder, seconds):
    "돌리고, 보이는 셀의 오류를 돌려준다. 감춘 셀은 장난감 그림의 숫자를 확인하므로 틀려도 된다."
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
        for cell in notebook.cells
        if cell.cell_type == 'code' and shown(cell)
        for out in cell.outputs
        if out.output_type == 'error'
    ]


def main(args=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('output', type=Path, help='돌린 노트북을 둘 폴더')
    parser.add_argument('--source', default='cifar10', help='cifar10 또는 사진 폴더')
    parser.add_argument('--data-dir', default='cifar10', help='공식 파일을 두는 폴더')
    parser.add_argument('--mirror', default=None, help='공식 서버 대신 받을 주소')
    parser.add_argument(
        '--only', action='append', help='돌릴 장, 여러 번 줄 수 있다. 없으면 모두'
    )
    parser.add_argument('--seconds', type=int, default=3600, help='셀 하나에 주는 시간')
    given = parser.parse_args(args)
    work, data_dir = given.output / 'work', os.path.abspath(given.data_dir)
    work.mkdir(parents=True, exist_ok=True)
    official = given.source == 'cifar10'
    to = given.source if official else 'photos'
    for link, target in (
        ('photos', given.source),
        ('cifar10', data_dir),
    ):  # 출력에 이 컴퓨터의 경로가 남지 않게 한다.
        if (link == 'cifar10') == official:
            os.makedirs(target, exist_ok=True)
            if not (work / link).exists():
                (work / link).symlink_to(
                    os.path.abspath(target), target_is_directory=True
                )
    if official:
        from cifar_lit.data import download_cifar10

        download_cifar10(data_dir, mirror=given.mirror or None)
    for path in sorted(NBS.glob('*.ipynb')):
        notebook = nbformat.read(path, 4)
        changed = [
            cell
            for cell in notebook.cells
            if cell.cell_type == 'code'
            and replaced(cell.source, to, 'cifar10') != cell.source
        ]
        if (
            not changed
            or not has_pictures(notebook)
            or given.only
            and path.stem not in given.only
        ):
            shutil.copy(path, given.output)
            continue
        for cell in changed:
            cell.source = replaced(cell.source, to, 'cifar10')
        errors = execute(notebook, work, given.seconds)
        if errors:
            print(
                f'::warning file=nbs/{path.name}::진짜 사진에서 오류가 나서 저장된 출력을 씁니다: {errors[0]}',
                flush=True,
            )
            shutil.copy(path, given.output)
            continue
        data = '진짜 CIFAR-10으로' if official else '사진 폴더로'
        notebook.cells[0].source += NOTE.format(data=data)
        nbformat.write(notebook, given.output / path.name)
        print(f'{path.stem}: {data} 돌렸습니다.', flush=True)
    shutil.rmtree(work)


if __name__ == '__main__':
    main()
