"""나란히, 번갈아, 되풀이하여 잰다.

    python bench SOURCE [--quick] [--only loader step ...] [--label 이름] [--table]

SOURCE는 사진 폴더나 데이터의 이름이다. 물음마다 bench/results/<이름>.json에 표본을 모두, <이름>.svg에 그림을 남기고, 표는 bench/results/README.md에 모은다.
--quick은 3분 안에 모두 한 번씩 훑는다. 그 결과는 bench/out에 남는다.
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

QUESTIONS = ('loader', 'step', 'tutorial', 'recipe', 'long', 'imports', 'growth')
HERE = Path(__file__).parent


def marked(row):
    return {True: '예', False: '**아니요**', None: ''}[row['met']]


def table(name, result):
    question = import_module(name)
    lines = [
        '',
        f'## {question.TITLE}',
        '',
        *question.__doc__.strip().splitlines(),
        '',
        '| | 잰 값 | 목표 | 닿았나 |',
        '|---|---|---|---|',
    ]
    lines += [
        f'| {row["what"]} | {row["value"]} | {row["target"]} | {marked(row)} |'
        for row in question.rows(result['samples'])
    ]
    here = result['machine']
    lines += [
        '',
        f'![{question.TITLE}]({name}.svg)',
        '',
        f'{result["date"]}, {result["source"]}, {here["processor"]} ({here["capability"]}, {here["precision"]}), 스레드 {here["threads"]}, '
        + ', '.join(f'{key} {value}' for key, value in here['versions'].items()),
    ]
    return '\n'.join(lines)


def picture(name, result, path):
    question = import_module(name)
    count = len(getattr(question, 'PLOTS', [0]))
    fig, axes = plt.subplots(
        1, count, figsize=(4.5 * count if count > 1 else 7, 3), layout='constrained'
    )
    with matplotlib.rc_context({'svg.hashsalt': name}):
        question.draw(result['samples'], axes)
        fig.savefig(path, metadata={'Date': None})
    plt.close(fig)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', help='사진 폴더, cifar10, toy, auto')
    parser.add_argument('--quick', action='store_true', help='3분 안에 훑는다')
    parser.add_argument(
        '--only', nargs='+', choices=QUESTIONS, default=QUESTIONS, help='이 물음만'
    )
    parser.add_argument('--label', help='표에 적을 사진의 이름 (기본: 폴더의 이름)')
    parser.add_argument(
        '--table',
        action='store_true',
        help='재지 않고 남은 표본에서 표와 그림만 다시 만든다',
    )
    args = parser.parse_args()
    prepare()
    results = HERE / ('out' if args.quick else 'results')
    results.mkdir(exist_ok=True)
    for name in args.only:
        path = results / f'{name}.json'
        if not args.table:
            samples = import_module(name).measure(args.source, args.quick)
            path.write_text(
                json.dumps(
                    dict(
                        date=str(date.today()),
                        source=args.label or Path(args.source).name,
                        machine=machine(),
                        samples=samples,
                    ),
                    indent=1,
                )
                + '\n'
            )
        result = json.loads(path.read_text())
        picture(name, result, path.with_suffix('.svg'))
        print(table(name, result), flush=True)
    made = [
        table(name, json.loads(path.read_text()))
        for name in QUESTIONS
        if (path := results / f'{name}.json').exists()
    ]
    (results / 'README.md').write_text(
        '# 잰 것\n\n`make bench`가 만든 글입니다. 표본은 이름이 같은 JSON에 모두 있습니다.\n'
        + '\n'.join(made)
        + '\n'
    )


if __name__ == '__main__':
    main()
