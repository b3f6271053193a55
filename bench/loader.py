"""(가) 이미지가 배치가 되기까지: torchvision처럼 한 장씩 변환하기, 텐서에서 바로 고르기와 나란히.

배치 32에서 40배에 못 미치는 까닭: 배치 하나에 46 µs가 들고 40배이려면 33 µs여야 한다. 나누어 재면 PyTorch의 `DataLoader` 자체가 43 %, 정규화가 26 %,
이미지 고르기가 11 %, 나머지(번호를 고르고 에포크를 나누는 numpy 호출)가 20 %로, 줄일 수 없는 앞의 셋만 37 µs이다.
배치가 128이면 `DataLoader`의 몫이 네 배의 이미지에 나뉜다.
"""

import json
import resource
import sys

import torch
from common import (
    draw_lines,
    faster_row,
    in_new_process,
    interleave,
    load,
    pick,
    row,
    seconds,
)
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tutorial import OriginalDataset

from cifar_lit.data import CIFAR10DataModule, normalize

TITLE = '데이터 경로'
COUNT = 10_000  # 한 번 잴 때의 이미지 수
PLAIN, MOVED = (
    ('torchvision', 'cifar_lit', 'tensor indexing'),
    ('torchvision + flip, crop', 'cifar_lit + flip, crop'),
)


def walk(loader):
    for batch in loader:
        pass


class Indexing:
    "데이터 로더 없이 텐서에서 바로 고른다."

    def __init__(self, images, labels, batch_size):
        self.images, self.labels, self.batch_size = images, labels, batch_size

    def __iter__(self):
        for rows in torch.randperm(len(self.labels)).split(self.batch_size):
            yield normalize(self.images[rows]), self.labels[rows]


def ours(images, labels, batch_size, **settings):
    dm = CIFAR10DataModule(batch_size, source='toy', val_size=1, **settings)
    dm._pictures = [(images, labels)] * 2
    dm.setup()
    return dm.train_dataloader()


def loaders(images, labels, batch_size):
    plain, moved = OriginalDataset(images, labels), OriginalDataset(images, labels)
    moved.transform.transforms[:0] = [
        v2.RandomCrop(32, 4, padding_mode='reflect'),
        v2.RandomHorizontalFlip(),
    ]
    made = (
        DataLoader(plain, batch_size, shuffle=True),
        ours(images, labels, batch_size),
        Indexing(images, labels, batch_size),
        DataLoader(moved, batch_size, shuffle=True),
        ours(images, labels, batch_size, flip='random', crop=4),
    )
    return dict(zip(PLAIN + MOVED, made))


def same_to_the_bit(dm):
    theirs = DataLoader(OriginalDataset(*dm._pictures[1]), dm.batch_size)
    return all(
        torch.equal(x, a) and torch.equal(y, b)
        for (x, y), (a, b) in zip(dm.test_dataloader(), theirs, strict=True)
    )


def memory(source):
    "증강하며 한 에포크를 도는 동안 늘어난 최대 메모리, 이미지의 크기, 배치 하나의 크기, MB. 새 프로세스에서 부른다."

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    dm = load(source, 128, flip='random', crop=4)
    walk(
        ours(*(part[:200] for part in dm._pictures[0]), 128, flip='random', crop=4)
    )  # 처음 부를 때 드는 것을 먼저 치른다.
    before = peak()
    walk(dm.train_dataloader())
    return dict(
        grown=peak() - before,
        pictures=sum(images.nbytes for images, _ in dm._pictures) / 2**20,
        batch_mb=128 * 3 * 32 * 32 * 4 / 2**20,
    )


def measure(source, quick):
    dm = load(source, 500)
    images, labels = (part[:COUNT] for part in dm._pictures[0])
    samples = [
        dict(name='same', repeat=0, seconds=0, equal=same_to_the_bit(dm)),
        dict(name='memory', repeat=0, seconds=0, **in_new_process('loader.py', source)),
    ]
    for batch_size in (128,) if quick else (32, 128, 512):
        runs = {
            name: lambda loader=loader: seconds(lambda: walk(loader))
            for name, loader in loaders(images, labels, batch_size).items()
        }
        samples += interleave(runs, 1 if quick else 7, warm=not quick, batch=batch_size)
    return samples


def rows(samples):
    memory = pick(samples, name='memory')[0]
    made = [
        row(
            '증강이 없으면 torchvision과 마지막 비트까지 같은가',
            '예' if samples[0]['equal'] else '아니요',
            '예',
            samples[0]['equal'],
        ),
        row(
            '한 에포크에 늘어난 메모리',
            f'{memory["grown"]:.1f} MB (이미지 {memory["pictures"]:.0f} MB)',
            f'배치 하나와 그 임시 공간({3 * memory["batch_mb"]:.1f} MB) 이하',
            memory['grown'] <= 3 * memory['batch_mb'],
        ),
    ]
    for batch_size in sorted({s['batch'] for s in samples if 'batch' in s}):
        here = pick(samples, batch=batch_size)
        for (theirs, mine), target in ((PLAIN[:2], 40), (MOVED, 25)):
            made.append(
                faster_row(
                    here,
                    mine,
                    theirs,
                    target,
                    label=f'배치 {batch_size}: {mine} / {theirs}',
                )
            )
        made.append(
            faster_row(
                here,
                PLAIN[1],
                PLAIN[2],
                label=f'배치 {batch_size}: {PLAIN[1]} / {PLAIN[2]}',
            )
        )
    return made


def draw(samples, ax):
    draw_lines(
        ax,
        [s for s in samples if 'batch' in s],
        PLAIN + MOVED,
        'batch',
        lambda s: COUNT / s['seconds'],
        'img/s',
    )


if __name__ == '__main__':
    print(json.dumps(memory(sys.argv[1])))
