"""이미지를 반으로 줄이기: `shrink`와 `F.avg_pool2d`를 번갈아.

`quick`이 한 스텝에 보는 배치(256장, 32픽셀)를 16픽셀로 줄인다. 메모리의 차례 둘로 잰다.
"""

import torch
import torch.nn.functional as F
from common import draw_bars, faster_row, interleave, seconds

from cifar_lit.parts.nets import shrink
from cifar_lit.parts.recipes import read_recipe

TITLE = '이미지 줄이기'
BATCH = read_recipe('quick')['data']['batch_size']
TIMES = 50  # 한 표본에서 되풀이할 횟수
LAYOUTS = {'NCHW': torch.contiguous_format, 'NHWC': torch.channels_last}
WAYS = {
    'shrink': lambda images: shrink(images, 16),
    'avg_pool2d': lambda images: F.avg_pool2d(images, 2),
}


def run(way, images):
    def repeat():
        for _ in range(TIMES):
            WAYS[way](images)

    return lambda: seconds(repeat) / TIMES


def measure(source, quick):
    images = torch.randn(BATCH, 3, 32, 32)
    runs = {
        f'{layout}, {way}': run(way, images.to(memory_format=order))
        for layout, order in LAYOUTS.items()
        for way in WAYS
    }
    return interleave(runs, 1 if quick else 7)


def rows(samples):
    pairs = {layout: [f'{layout}, {way}' for way in WAYS] for layout in LAYOUTS}
    return [faster_row(samples, *pair, label=layout) for layout, pair in pairs.items()]


def draw(samples, ax):
    names = [f'{layout}, {way}' for layout in LAYOUTS for way in WAYS]
    draw_bars(ax, samples, names, lambda s: 1000 * s['seconds'], 'ms per batch')
