"""Winograd로 곱할 때와 정의대로 곱할 때: `fast` 신경망의 한 스텝과 합성곱 하나씩.

한 스텝은 `fast`의 배치로 하는 앞뒤 계산과 옵티마이저의 걸음이다. 합성곱은 이미지
250장의 앞뒤 계산이고, `fewer_products`가 고르지 않는 모양까지 억지로 재어, 느려지는
것도 함께 보인다.
32비트로 잰다. bf16으로 학습하는 컴퓨터에서는 Winograd를 쓰지 않는다.
"""

from unittest import mock

import torch
import torch.nn.functional as F
from common import draw_bars, faster_row, interleave, seconds
from tries import PLAIN, optimizer_for

from cifar_lit.parts.nets import FastNet, shrink
from cifar_lit.parts.recipes import read_recipe
from cifar_lit.parts.winograd import WinogradConv2d, winograd

TITLE = 'Winograd 합성곱'
WAYS = ('winograd', 'direct')
BATCH = read_recipe('fast')['data']['batch_size']
SIZES = (32, 26, 24, 20)
LAYERS = {  # 입력, 출력, 한 변
    '256 to 256, 3 px': (256, 256, 3),
    '256 to 256, 4 px': (256, 256, 4),
    '256 to 256, 6 px': (256, 256, 6),
    '256 to 256, 7 px': (256, 256, 7),
    '64 to 256, 9 px': (64, 256, 9),
    '64 to 256, 12 px': (64, 256, 12),
    '64 to 256, 15 px': (64, 256, 15),
    '256 to 256, 5 px (not used)': (256, 256, 5),
    '64 to 64, 15 px (not used)': (64, 64, 15),
    '24 to 64, 31 px (not used)': (24, 64, 31),
}


def step_at(size, way):
    "`fast` 신경망의 한 스텝에 든 초를 돌려주는 함수"
    torch.manual_seed(0)
    net = FastNet((3, 32, 32), 10)
    net.to(memory_format=torch.channels_last).train()
    optimizer = optimizer_for(net, PLAIN)
    images = shrink(torch.randn(BATCH, 3, 32, 32), size)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % 10

    def step():
        F.cross_entropy(net.logits(images, size), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    def run():
        worth_it = WinogradConv2d._worth_it if way == 'winograd' else lambda *_: False
        with mock.patch.object(WinogradConv2d, '_worth_it', worth_it):
            return seconds(step)

    return run


def layer_of(shape, way):
    "합성곱 하나의 앞뒤 계산에 든 초를 돌려주는 함수"
    inputs, outputs, side = shape
    torch.manual_seed(0)
    x = torch.randn(250, inputs, side, side).to(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs, 3, 3).requires_grad_()
    x.requires_grad_()

    def both():
        y = winograd(x, weight) if way == 'winograd' else F.conv2d(x, weight, padding=1)
        y.backward(y.detach())
        x.grad = weight.grad = None

    return lambda: seconds(both)


def measure(source, quick):
    runs = {}
    for way in WAYS:
        for size in SIZES:
            runs[f'step, {size} px, {way}'] = step_at(size, way)
        for name, shape in LAYERS.items():
            runs[f'{name}, {way}'] = layer_of(shape, way)
    return interleave(runs, 1 if quick else 7)


def rows(samples):
    names = [*(f'step, {size} px' for size in SIZES), *LAYERS]
    pairs = [[f'{name}, {way}' for way in WAYS] for name in names]
    return [faster_row(samples, *pair, label=name) for name, pair in zip(names, pairs)]


def draw(samples, ax):
    names = [f'step, {size} px, {way}' for size in SIZES for way in WAYS]
    draw_bars(ax, samples, names, lambda sample: sample['seconds'], 'step, seconds')
