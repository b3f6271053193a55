"""나란히, 번갈아, 되풀이하여 잰다.

    python bench SOURCE [--quick] [--only loader step ...] [--label 이름] [--table]

SOURCE는 사진 폴더나 데이터의 이름이다. 물음마다 bench/results/<이름>.json에 표본을
모두, <이름>.svg에 그림을 남기고, 표는 bench/results/README.md에 모은다.
--quick은 몇 분 안에 모두 한 번씩 훑는다. 그 결과는 bench/out에 남는다.
"""

import argparse
import json
from datetime import date
from importlib import import_module
from pathlib import Path

import matplotlib

matplotlib.use('svg')
import matplotlib.pyplot as plt
from common import machine, prepare

QUESTIONS = (
    'loader',
    'step',
    'tutorial',
    'grid',
    'recipe',
    'race',
    'tries',
    'imports',
    'start',
    'growth',
    'shrink',
    'batch',
    'precision',
    'muon',
    'conv',
    'search',
    'paper',
    'stream',
    'gpu',
)
HERE = Path(__file__).parent
MARKS = {True: '예', False: '**아니요**', None: ''}

# 물음 하나의 글: 제목, 모듈의 독스트링, 표, 그림, 잰 날과 컴퓨터
SECTION = """
## {title}

{text}

| | 잰 값 | 목표 | 닿았나 |
|---|---|---|---|
{rows}

![{title}]({name}.svg)

{measured}"""

README = """# 잰 것

`make bench`가 만든 글입니다. 표본은 이름이 같은 JSON에 모두 있습니다.
{sections}
"""


def table_row(row):
    return f'| {row["what"]} | {row["value"]} | {row["target"]} | {MARKS[row["met"]]} |'


def measured_on(result):
    "잰 날, 사진, 컴퓨터, 라이브러리의 버전"
    here = result['machine']
    processor = f'{here["processor"]} ({here["capability"]}, {here["precision"]})'
    parts = [result['date'], result['source'], processor, f'스레드 {here["threads"]}']
    parts += [f'{name} {version}' for name, version in here['versions'].items()]
    return ', '.join(parts)


def table(name, result):
    question = import_module(name)
    return SECTION.format(
        title=question.TITLE,
        text=question.__doc__.strip(),
        rows='\n'.join(map(table_row, question.rows(result['samples']))),
        name=name,
        measured=measured_on(result),
    )


def picture(name, result, path):
    question = import_module(name)
    count = len(getattr(question, 'PLOTS', [0]))
    width = 4.5 * count if count > 1 else 7
    fig, axes = plt.subplots(1, count, figsize=(width, 3), layout='constrained')
    with matplotlib.rc_context({'svg.hashsalt': name}):
        question.draw(result['samples'], axes)
        fig.savefig(path, metadata={'Date': None})
    plt.close(fig)


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('source', help='사진 폴더, cifar10, toy, auto')
    add('--quick', action='store_true', help='몇 분 안에 훑는다')
    add('--only', nargs='+', choices=QUESTIONS, default=QUESTIONS, help='이 물음만')
    add('--label', help='표에 적을 사진의 이름 (기본: 폴더의 이름)')
    add('--table', action='store_true', help='재지 않고 표와 그림만 다시 만든다')
    return parser.parse_args()


def measure(name, arguments, path):
    "잰 결과. 이어서 잴 수 있는 물음이면 표본마다 `path`에 남긴다."
    question = import_module(name)
    used = getattr(question, 'MEASURED', {})  # 물음이 스스로 정한 것
    source = used.get('source', arguments.label or Path(arguments.source).name)
    here = machine()
    result = dict(
        date=str(date.today()),
        source=source,
        machine=here | {'threads': used.get('threads', here['threads'])},
    )
    if not getattr(question, 'RESUMES', False):
        samples = question.measure(arguments.source, arguments.quick)
        return result | {'samples': samples}
    before = json.loads(path.read_text()) if path.exists() else {}
    done = [] if arguments.quick else before.get('samples', [])
    if done:  # 앞서 잰 날과 컴퓨터를 남긴다. 표본마다의 것은 표본에 있다.
        result = {name: before[name] for name in result}

    def save(samples):
        write_json(path, result | {'samples': samples})

    samples = question.measure(arguments.source, arguments.quick, done, save)
    return result | {'samples': samples}


def write_json(path, result):
    path.write_text(json.dumps(result, indent=1) + '\n')


def main():
    arguments = read_arguments()
    prepare()
    results = HERE / ('out' if arguments.quick else 'results')
    results.mkdir(exist_ok=True)
    for name in arguments.only:
        path = results / f'{name}.json'
        if not arguments.table:
            write_json(path, measure(name, arguments, path))
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        picture(name, result, path.with_suffix('.svg'))
        print(table(name, result), flush=True)
    sections = []
    for name in QUESTIONS:
        path = results / f'{name}.json'
        if path.exists():
            sections.append(table(name, json.loads(path.read_text())))
    (results / 'README.md').write_text(README.format(sections='\n'.join(sections)))


if __name__ == '__main__':
    main()
