"""`fast` 레시피를 끝까지. 시간은 홀로 돌린 시드 0과 1에서만 잰다.

더 돌린 시드는 다른 일을 하는 컴퓨터에서 스레드 하나로 돌린 것이라 정확도만 쓴다.

AIRBENCH에 airbench를 푼 폴더를 주면 그 한 스텝을 CPU의 bf16에서 나란히
잰다. airbench94의 시간은 (한 스텝의 중앙값 × 스텝 수)로 셈한다. 증강, lookahead,
에포크마다의 평가는 빠지므로 실제보다 짧다. 정확도는 다시 재지 않는다.
'airbench94'는 새 프로세스에서 적힌 그대로, 'airbench94 + malloc'은 `fast`처럼 메모리를
쥐고 있게 한 것이다. 같은 조건으로 비교할 것은 뒤의 것이다.

시간의 목표(0.8배)를 막는 것: torch.profiler로 본 `fast` 한 스텝(배치 500)의 78 %가
합성곱(뒤로 56, 앞으로 21)이고, 나머지는 최대 풀링 7, 0으로 채우기 5, GELU 4,
BatchNorm 2, Muon 3 %이다. 합성곱은 앞뒤를 더해 초당 694 GFLOP로, 같은 컴퓨터에서 한 변
4,096인 bf16 행렬 곱의 694~704 GFLOP와 같다. 그러니 줄일 수 있는 것은 보는 이미지의 수와
크기뿐이다.
"""

import json
import os
import statistics
import sys
from math import ceil

import lightning.pytorch as pl
import torch
from airbench import import_script
from common import (
    draw_bars,
    in_new_process,
    load,
    pick,
    prepare,
    row,
    seconds,
    spread,
    training_only,
)

from cifar_lit.parts.recipes import read_recipe
from cifar_lit.parts.runs import Stopwatch
from cifar_lit.speed import FastModel

TITLE = '더 길게: fast'
PUBLISHED = 1029  # airbench94가 2코어에서 학습에 쓴 시간, 초
ACCURACY = 90.7  # 그 정확도, %
THEIRS, TUNED = 'airbench94', 'airbench94 + malloc'


def airbench_seconds(count):
    """`airbench94.py`의 신경망과 SGD로 학습을 마칠 때까지의 시간, 초.

    `count`스텝을 돌아 본 것을 모든 스텝에 맞춰 늘린다.
    """
    theirs = import_script(THEIRS, on_gpu=False, mixed=True)
    options, net = theirs.hyp['opt'], theirs.make_net().train()
    trained = [weight for weight in net.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.85, nesterov=True)
    size = options['batch_size']
    x = torch.randn(size, 3, 32, 32).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (size,))
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=0.2, reduction='none')

    def step():
        with torch.autocast('cpu', torch.bfloat16):
            loss = loss_fn(net(x), y).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step()
    one = statistics.median(seconds(step) for _ in range(count))
    return one * ceil(50_000 // size * options['train_epochs'])


def fast(source, seed, **length):
    pl.seed_everything(seed, verbose=False)
    recipe = read_recipe('fast')
    dm = load(source, **recipe['data'])
    model, watch = FastModel((3, 32, 32), dm.num_classes), Stopwatch()
    trainer = training_only(
        **{**recipe['trainer'], **length},
        callbacks=[watch],
        logger=False,
    )
    trainer.fit(model, dm)
    results = []
    test_seconds = seconds(
        lambda: results.extend(trainer.test(model, dm, verbose=False))
    )
    return dict(
        name='fast',
        repeat=seed,
        seconds=round(watch.time_elapsed('train'), 1),
        test_seconds=round(test_seconds, 1),
        pictures=watch.seen,
        accuracy=round(100 * results[0]['test_acc'], 2),
    )


def measure(source, quick):
    fetched = os.environ.get('AIRBENCH')
    count = 3 if quick else 15
    length = dict(max_epochs=1, limit_train_batches=10) if quick else {}
    samples = []
    for seed in range(1 if quick else 2):
        for name in (THEIRS, TUNED) if fetched else ():
            spent = in_new_process('long.py', name, count)
            samples.append(dict(name=name, repeat=seed, seconds=spent))
        samples.append(fast(source, seed, **length))
    return samples


def mean(samples, key):
    return statistics.mean(sample[key] for sample in samples)


def compared_row(name, theirs, spent):
    ratio = spent / mean(theirs, 'seconds')
    target = ('0.8배 이하', ratio <= 0.8) if name == THEIRS else ()
    return row(f'fast / {name}, 학습 시간', f'{spent:.0f}초, {ratio:.2f}배', *target)


def rows(samples):
    ours = pick(samples, name='fast')
    airbench = {name: pick(samples, name=name) for name in (THEIRS, TUNED)}
    airbench = {name: theirs for name, theirs in airbench.items() if theirs}
    timed = [s for s in ours if 'seconds' in s]  # 나머지는 정확도만 잰 것
    speed = statistics.median(s['pictures'] / s['seconds'] for s in timed)
    made = [row('fast', f'초당 {speed:,.0f}장')]
    for name, theirs in airbench.items():
        spent = spread([s['seconds'] for s in theirs])
        made.append(row(name, f'{spent}초 (적힌 값 {PUBLISHED:,}초)'))
    whole = [s for s in ours if s['pictures'] > 50_000]
    if not whole:
        return made
    accuracy = spread([s['accuracy'] for s in whole])
    reached = mean(whole, 'accuracy') >= ACCURACY
    target = (f'{ACCURACY} % 이상', reached)
    words = f'fast의 테스트 정확도, 시드 {len(whole)}개'
    made.append(row(words, f'{accuracy} %', *target))
    spent = mean([s for s in whole if 'seconds' in s], 'seconds')
    for name, theirs in airbench.items():
        made.append(compared_row(name, theirs, spent))
    return made


def draw(samples, ax):
    names = sorted({sample['name'] for sample in samples})
    timed = [sample for sample in samples if 'seconds' in sample]
    draw_bars(ax, timed, names, lambda s: s['seconds'], 'training, seconds')


if __name__ == '__main__':
    name, count = sys.argv[1:]
    if name == TUNED:
        prepare()
    print(json.dumps(round(airbench_seconds(int(count)), 1)))
