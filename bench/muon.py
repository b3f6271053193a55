"""Muon의 한 스텝을 bf16으로, 32비트로, 그리고 `orthogonalize`가 고른 대로.

`quick`과 `fast`의 신경망에서 기울기를 한 번 구해 두고 옵티마이저의 `step`만 잰다.
"""

from unittest import mock

import torch
import torch.nn.functional as F
from common import draw_bars, faster_row, interleave, seconds

from cifar_lit import speed
from cifar_lit.parts.recipes import read_recipe

TITLE = 'Muon의 정밀도'
NETS = ('quick', 'fast')
WAYS = {'bf16': 'bf16-mixed', '32 bits': '32-true', 'chosen': speed.best_precision()}


def step_of(recipe, precision):
    "`MuonWithAdam.step` 한 번의 초를 돌려주는 함수"
    torch.manual_seed(0)
    settings = read_recipe(recipe).get('model', {})
    net = speed.FastModel((3, 32, 32), 10, **settings).net
    logits = net.logits(torch.randn(16, 3, 32, 32))
    F.cross_entropy(logits, torch.arange(16) % 10).backward()
    learned = [weight for weight in net.parameters() if weight.requires_grad]
    kernels = [weight for weight in learned if weight.ndim == 4]
    optimizer = speed.MuonWithAdam(kernels, [net.head.weight])
    gradients = [kernel.grad for kernel in kernels]

    def run():
        for kernel, gradient in zip(kernels, gradients):
            kernel.grad = gradient  # `step`이 지운다.
        with mock.patch.object(speed, 'best_precision', lambda device: precision):
            return seconds(optimizer.step)

    return run


def measure(source, quick):
    runs = {
        f'{recipe}, {way}': step_of(recipe, precision)
        for recipe in NETS
        for way, precision in WAYS.items()
    }
    return interleave(runs, 3 if quick else 15)


def rows(samples):
    made = []
    for recipe in NETS:
        base = f'{recipe}, bf16'
        made.append(faster_row(samples, f'{recipe}, 32 bits', base))
        made.append(faster_row(samples, f'{recipe}, chosen', base))
    return made


def draw(samples, ax):
    names = [f'{recipe}, {way}' for recipe in NETS for way in WAYS]
    draw_bars(ax, samples, names, lambda sample: 1000 * sample['seconds'], 'step, ms')
    ax.set(xscale='log')
