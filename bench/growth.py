"""(바) 커질 때: 이미지 5천 장에서 50만 장, 배치 32에서 4,096, 스레드 하나에서 둘."""

import torch
import torch.nn.functional as F
from common import draw_lines, interleave, middle, pick, row, seconds
from loader import ours, walk
from step import model

from cifar_lit.model import LitModel
from cifar_lit.parts.hardware import best_precision
from cifar_lit.parts.toy import toy_pictures

TITLE = '커질 때'
PLOTS = (('pictures', '이미지 수'), ('batch', '배치'), ('threads', '스레드'))
DATA, TRAIN = 'data path', 'LitModel training step'
FEW, SOME, MANY = 5_000, 50_000, 500_000


def repeated(images, labels, n):
    "그림을 되풀이하여 `n`장으로 늘린다."
    times = -(-n // len(labels))
    return images.repeat(times, 1, 1, 1)[:n], labels.repeat(times)[:n]


def trained(batch_size, count):
    "배치 `batch_size`로 `count`장쯤을 학습하고 이미지 한 장의 초를 돌려주는 함수"
    net = model(LitModel)
    mixed = best_precision() == 'bf16-mixed'
    optimizer = net.configure_optimizers()
    x = torch.randn(batch_size, 3, 32, 32)
    y = torch.randint(0, 10, (batch_size,))
    steps = max(1, count // batch_size)

    def run():
        for _ in range(steps):
            with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
                loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return lambda: seconds(run) / (steps * batch_size)


def fetched(images, labels, batch_size):
    "한 에포크를 읽고 이미지 한 장의 초를 돌려주는 함수"
    loader = ours(images, labels, batch_size)
    return lambda: seconds(lambda: walk(loader)) / len(labels)


def measure(source, quick):
    repeats = 3 if quick else 5
    count = 1024 if quick else 8192
    images, labels = toy_pictures(FEW)
    samples = []
    for n in (FEW, SOME) if quick else (FEW, SOME, MANY):
        runs = {DATA: fetched(*repeated(images, labels, n), 128)}
        samples += interleave(runs, repeats, pictures=n)
    images, labels = repeated(images, labels, 20_000)
    for size in (32, 4096) if quick else (32, 128, 512, 2048, 4096):
        runs = {DATA: fetched(images, labels, size), TRAIN: trained(size, count)}
        samples += interleave(runs, repeats, batch=size)
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        runs = {DATA: fetched(images, labels, 128), TRAIN: trained(128, count)}
        samples += interleave(runs, repeats, threads=n)
    torch.set_num_threads(threads)
    return samples


def speed(sample):
    return 1 / sample['seconds']


def grown_row(key, korean, name, samples):
    "커질 때마다의 이미지 수, 초마다. 잰 적이 없으면 None"
    measured = [sample for sample in pick(samples, name=name) if key in sample]
    places = sorted({sample[key] for sample in measured})
    if not places:
        return None
    speeds = [1 / middle(pick(measured, **{key: place})) for place in places]
    what = f'{korean} {places[0]:,} → {places[-1]:,}: {name}'
    return row(what, ' → '.join(f'{speed:,.0f}' for speed in speeds) + ' img/s')


def rows(samples):
    made = [
        grown_row(key, korean, name, samples)
        for key, korean in PLOTS
        for name in (DATA, TRAIN)
    ]
    return [found for found in made if found]


def draw(samples, axes):
    for ax, (key, _) in zip(axes, PLOTS):
        measured = [sample for sample in samples if key in sample]
        names = sorted({sample['name'] for sample in measured})
        draw_lines(ax, measured, names, key, speed, 'img/s')
