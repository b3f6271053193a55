"""(가) 이미지가 배치가 되기까지.

torchvision처럼 한 장씩 변환하기, 텐서에서 바로 고르기와 나란히 잰다.

작업자가 없으면 128장을 한 번에 만들어 배치로 자른다(`cut_ahead`).
'cifar_lit, DataLoader'는 자르지 않고 PyTorch의 `DataLoader`로 배치마다 고른 것이다.
"""

import json
import resource
import sys
from functools import partial

import torch
from common import (
    draw_lines,
    faster_row,
    in_new_process,
    interleave,
    load,
    pick,
    reuse,
    row,
    seconds,
)
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tutorial import OriginalDataset

from cifar_lit.parts.batches import collate, split_indices
from cifar_lit.parts.pictures import CLASSES, normalize

TITLE = '데이터 경로'
COUNT = 10_000  # 한 번 잴 때의 이미지 수
BATCH = 500  # torchvision과 값이 같은지 볼 때의 배치
THEIRS, OURS, INDEXING = 'torchvision', 'cifar_lit', 'tensor indexing'
THEIRS_MOVED = 'torchvision + flip, crop'
OURS_MOVED = 'cifar_lit + flip, crop'
UNCUT = 'cifar_lit, DataLoader'
NAMES = (THEIRS, OURS, UNCUT, INDEXING, THEIRS_MOVED, OURS_MOVED)


def walk(loader):
    for _ in loader:
        pass


class Indexing:
    "데이터 로더 없이 텐서에서 바로 고른다."

    def __init__(self, images, labels, batch_size):
        self.images, self.labels, self.batch_size = images, labels, batch_size

    def __iter__(self):
        for indices in torch.randperm(len(self.labels)).split(self.batch_size):
            yield normalize(self.images[indices]), self.labels[indices]


class Given:
    "이미 메모리에 든 이미지와 라벨을 주는 출처"

    name, classes = 'given', list(CLASSES)
    split = staticmethod(split_indices)

    def __init__(self, images, labels):
        self.pictures = images, labels

    def prepare(self):
        "준비할 것이 없다."

    def load(self, split):
        return self.pictures


def ours(images, labels, batch_size, **augmentation):
    dm = reuse(Given(images, labels), batch_size, val_size=1, **augmentation)
    return dm.train_dataloader()


def uncut(images, labels, batch_size):
    "배치를 앞서 자르지 않는 PyTorch의 `DataLoader`"
    loader = ours(images, labels, batch_size)
    options = {'sampler': loader.sampler, 'collate_fn': collate}
    return DataLoader(loader.dataset, batch_size, **options)


def theirs(images, labels, batch_size, *augmentations):
    dataset = OriginalDataset(images, labels)
    dataset.transform.transforms[:0] = augmentations
    return DataLoader(dataset, batch_size, shuffle=True)


def loaders(images, labels, batch_size):
    pictures = images, labels, batch_size
    crop = v2.RandomCrop(32, 4, padding_mode='reflect')
    return {
        THEIRS: theirs(*pictures),
        OURS: ours(*pictures),
        UNCUT: uncut(*pictures),
        INDEXING: Indexing(*pictures),
        THEIRS_MOVED: theirs(*pictures, crop, v2.RandomHorizontalFlip()),
        OURS_MOVED: ours(*pictures, flip='random', crop=4),
    }


def same_to_the_bit(dm):
    test = OriginalDataset(dm.cifar_test.images, dm.cifar_test.labels)
    pairs = zip(dm.test_dataloader(), DataLoader(test, BATCH), strict=True)
    return all(
        torch.equal(our_images, their_images) and torch.equal(our_labels, their_labels)
        for (our_images, our_labels), (their_images, their_labels) in pairs
    )


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(source):
    """증강하며 한 에포크를 도는 동안 늘어난 최대 메모리, MB. 새 프로세스에서 부른다.

    이미지의 크기와 배치 하나의 크기도 함께 돌려준다.
    """
    dm = load(source, 128, flip='random', crop=4)
    train, test = dm.cifar_train.dataset, dm.cifar_test
    # 처음 부를 때 드는 것을 먼저 치른다.
    few = train.images[:200], train.labels[:200]
    walk(ours(*few, 128, flip='random', crop=4))
    before = peak_memory()
    walk(dm.train_dataloader())
    return dict(
        grown=peak_memory() - before,
        pictures=(train.images.nbytes + test.images.nbytes) / 2**20,
        batch_mb=128 * 3 * 32 * 32 * 4 / 2**20,
    )


def time_to_walk(loader):
    return seconds(lambda: walk(loader))


def measure(source, quick):
    dm = load(source, BATCH)
    train = dm.cifar_train.dataset
    samples = [
        dict(name='same', repeat=0, seconds=0, equal=same_to_the_bit(dm)),
        dict(name='memory', repeat=0, seconds=0, **in_new_process('loader.py', source)),
    ]
    for batch_size in (128,) if quick else (32, 128, 512):
        made = loaders(train.images[:COUNT], train.labels[:COUNT], batch_size)
        runs = {name: partial(time_to_walk, loader) for name, loader in made.items()}
        samples += interleave(runs, 1 if quick else 7, warm=not quick, batch=batch_size)
    return samples


def same_row(samples):
    [found] = pick(samples, name='same')
    answer = '예' if found['equal'] else '아니요'
    what = '증강이 없으면 torchvision과 마지막 비트까지 같은가'
    return row(what, answer, '예', found['equal'])


def memory_row(samples):
    [found] = pick(samples, name='memory')
    limit = 3 * found['batch_mb']
    return row(
        '한 에포크에 늘어난 메모리',
        f'{found["grown"]:.1f} MB (이미지 {found["pictures"]:.0f} MB)',
        f'배치 하나와 그 임시 공간({limit:.1f} MB) 이하',
        found['grown'] <= limit,
    )


def rows(samples):
    made = [same_row(samples), memory_row(samples)]
    pairs = (
        (OURS, THEIRS, 40),
        (OURS_MOVED, THEIRS_MOVED, 25),
        (OURS, UNCUT, None),
        (OURS, INDEXING, None),
    )
    for batch_size in sorted({s['batch'] for s in samples if 'batch' in s}):
        measured = pick(samples, batch=batch_size)
        for name, base, target in pairs:
            label = f'배치 {batch_size}: {name} / {base}'
            made.append(faster_row(measured, name, base, target, label=label))
    return made


def speed(sample):
    return COUNT / sample['seconds']


def draw(samples, ax):
    measured = [sample for sample in samples if 'batch' in sample]
    draw_lines(ax, measured, NAMES, 'batch', speed, 'img/s')


if __name__ == '__main__':
    print(json.dumps(memory(sys.argv[1])))
