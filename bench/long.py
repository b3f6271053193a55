"""`fast` 조리법을 끝까지: 씨앗 둘. AIRBENCH에 airbench의 legacy/airbench94.py를 주면 그 한 스텝을 CPU의 bf16에서 나란히 잰다.

airbench94의 시간은 (한 스텝의 중앙값 × 스텝 수)로 셈한다. 증강, lookahead, 에포크마다의 평가는 빠지므로 실제보다 짧다. 정확도는 다시 재지 않는다.
'airbench94'는 새 프로세스에서 적힌 그대로, 'airbench94 + malloc'은 `fast`처럼 메모리를 쥐고 있게 한 것이다.

시간의 목표(0.8배)를 막는 것: torch.profiler로 본 `fast` 한 스텝(배치 500)의 78 %가 합성곱(뒤로 56, 앞으로 21)이고, 나머지는
최대 풀링 7, 0으로 채우기 5, GELU 4, BatchNorm 2, Muon 3 %이다. 합성곱은 앞뒤를 더해 초당 694 GFLOP로, 같은 컴퓨터에서 한 변 4,096인
bf16 행렬 곱의 694~704 GFLOP와 같다. airbench94의 합성곱도 같으므로 줄일 수 있는 것은 보는 이미지의 수와 크기뿐이다.
12에포크 가운데 앞의 넷, 일곱을 24픽셀로 보면(씨앗 0) 90.61, 90.41 %로, 시간을 줄인 만큼 정확도가 낮아졌다.
"""

import json
import os
import statistics
import sys
import types
from math import ceil
from pathlib import Path

import lightning.pytorch as pl
import torch
from common import draw_bars, in_new_process, load, pick, prepare, row, seconds, spread

from cifar_lit.speed import FastModel, recipe_arguments
from cifar_lit.train import _Stopwatch, best_precision

TITLE = '더 길게: fast'
PUBLISHED = 1029  # airbench94가 2코어에서 학습에 쓴 시간, 초
ACCURACY = 90.7  # 그 정확도, %
THEIRS, TUNED = 'airbench94', 'airbench94 + malloc'


def airbench_steps(path, count):
    "`airbench94.py`의 신경망과 SGD로 `count`스텝을 돌 때 걸린 시간을 모두에 맞춰 늘린 것, 초"
    source = (
        Path(path)
        .read_text()
        .replace('.half().cuda()', '')
        .replace('torch.backends.cudnn.benchmark = True', '')
    )
    theirs = types.ModuleType('airbench94')
    exec(compile(source, path, 'exec'), theirs.__dict__)
    size, net = theirs.hyp['opt']['batch_size'], theirs.make_net().train()
    optimizer = torch.optim.SGD(
        [p for p in net.parameters() if p.requires_grad],
        lr=1e-3,
        momentum=0.85,
        nesterov=True,
    )
    x, y = (
        torch.randn(size, 3, 32, 32).to(memory_format=torch.channels_last),
        torch.randint(0, 10, (size,)),
    )
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=0.2, reduction='none')

    def step():
        with torch.autocast('cpu', torch.bfloat16):
            loss = loss_fn(net(x), y).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    step()
    return statistics.median(seconds(step) for _ in range(count)) * ceil(
        50_000 // size * theirs.hyp['opt']['train_epochs']
    )


def fast(source, seed, **length):
    pl.seed_everything(seed, verbose=False)
    dm = load(source, **recipe_arguments('fast', 'data'))
    model, watch = (
        FastModel((3, 32, 32), dm.num_classes, **recipe_arguments('fast', 'model')),
        _Stopwatch(),
    )
    trainer = pl.Trainer(
        **{**recipe_arguments('fast', 'trainer'), **length},
        precision=best_precision(),
        callbacks=[watch],
        num_sanity_val_steps=0,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator='cpu',
    )
    trainer.fit(model, dm)
    spent, accuracy = watch.time_elapsed('train'), []
    test_seconds = seconds(
        lambda: accuracy.append(trainer.test(model, dm, verbose=False)[0]['test_acc'])
    )
    return dict(
        name='fast',
        repeat=seed,
        seconds=round(spent, 1),
        test_seconds=round(test_seconds, 1),
        pictures=watch.seen,
        accuracy=round(100 * accuracy[0], 2),
    )


def measure(source, quick):
    path, samples = os.environ.get('AIRBENCH'), []
    for seed in range(1 if quick else 2):
        if path:
            samples += [
                dict(
                    name=name,
                    repeat=seed,
                    seconds=in_new_process('long.py', path, name, 3 if quick else 15),
                )
                for name in (THEIRS, TUNED)
            ]
        samples.append(
            fast(
                source,
                seed,
                **dict(max_epochs=1, limit_train_batches=10) if quick else {},
            )
        )
    return samples


def rows(samples):
    ours = pick(samples, name='fast')
    made = [
        row(
            'fast',
            f'초당 {statistics.median(s["pictures"] / s["seconds"] for s in ours):,.0f}장',
        )
    ]
    made += [
        row(
            name,
            f'{spread([s["seconds"] for s in theirs])}초 (적힌 값 {PUBLISHED:,}초)',
        )
        for name in (THEIRS, TUNED)
        if (theirs := pick(samples, name=name))
    ]
    whole = [s for s in ours if s['pictures'] > 50_000]
    if not whole:
        return made
    accuracy, time = (
        statistics.mean(s['accuracy'] for s in whole),
        statistics.mean(s['seconds'] for s in whole),
    )
    made.append(
        row(
            'fast의 평가 정확도',
            f'{spread([s["accuracy"] for s in whole])} %',
            f'{ACCURACY} % 이상',
            accuracy >= ACCURACY,
        )
    )
    for name in (THEIRS, TUNED):
        if theirs := pick(samples, name=name):
            ratio = time / statistics.mean(s['seconds'] for s in theirs)
            made.append(
                row(
                    f'fast / {name}, 학습 시간',
                    f'{time:.0f}초, {ratio:.2f}배',
                    '0.8배 이하' if name == THEIRS else '',
                    ratio <= 0.8 if name == THEIRS else None,
                )
            )
    return made


def draw(samples, ax):
    draw_bars(
        ax,
        samples,
        sorted({s['name'] for s in samples}),
        lambda s: s['seconds'],
        'training, seconds',
    )


if __name__ == '__main__':
    path, name, count = sys.argv[1:]
    if name == TUNED:
        prepare()
    print(json.dumps(round(airbench_steps(path, int(count)), 1)))
