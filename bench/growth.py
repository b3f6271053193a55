"""(바) 커질 때: 이미지 5천 장에서 50만 장, 배치 32에서 4,096, 스레드 하나에서 둘."""

import torch
from common import draw_lines, interleave, middle, pick, row, seconds
from loader import ours, walk
from step import model

from cifar_lit.data import toy_pictures
from cifar_lit.model import LitModel
from cifar_lit.train import best_precision

TITLE = '커질 때'
PLOTS = (('pictures', '이미지 수'), ('batch', '배치'), ('threads', '스레드'))
DATA, TRAIN = 'data path', 'LitModel training step'


def pictures(n, start):
    return start[0].repeat(-(-n // 5000), 1, 1, 1)[:n], start[1].repeat(-(-n // 5000))[
        :n
    ]


def trained(batch_size, count):
    net, mixed = model(LitModel), best_precision() == 'bf16-mixed'
    optimizer, x, y = (
        net.configure_optimizers(),
        torch.randn(batch_size, 3, 32, 32),
        torch.randint(0, 10, (batch_size,)),
    )

    def run():
        for _ in range(max(1, count // batch_size)):
            with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
                loss = net.loss(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return lambda: seconds(run) / (max(1, count // batch_size) * batch_size)


def fetched(images, labels, batch_size):
    loader = ours(images, labels, batch_size)
    return lambda: seconds(lambda: walk(loader)) / len(labels)


def measure(source, quick):
    repeats, start, samples, count = (
        3 if quick else 5,
        toy_pictures(5000),
        [],
        1024 if quick else 8192,
    )
    for n in (5_000, 50_000) if quick else (5_000, 50_000, 500_000):
        samples += interleave(
            {DATA: fetched(*pictures(n, start), 128)}, repeats, pictures=n
        )
    for size in (32, 4096) if quick else (32, 128, 512, 2048, 4096):
        samples += interleave(
            {
                DATA: fetched(*pictures(20_000, start), size),
                TRAIN: trained(size, count),
            },
            repeats,
            batch=size,
        )
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        samples += interleave(
            {DATA: fetched(*pictures(20_000, start), 128), TRAIN: trained(128, count)},
            repeats,
            threads=n,
        )
    torch.set_num_threads(threads)
    return samples


def rows(samples):
    made = []
    for key, korean in PLOTS:
        for name in (DATA, TRAIN):
            here = [s for s in pick(samples, name=name) if key in s]
            places = sorted({s[key] for s in here})
            if places:
                made.append(
                    row(
                        f'{korean} {places[0]:,} → {places[-1]:,}: {name}',
                        ' → '.join(
                            f'{1 / middle(pick(here, **{key: place})):,.0f}'
                            for place in places
                        )
                        + ' img/s',
                    )
                )
    return made


def draw(samples, axes):
    for ax, (key, _) in zip(axes, PLOTS):
        here = [s for s in samples if key in s]
        draw_lines(
            ax,
            here,
            sorted({s['name'] for s in here}),
            key,
            lambda s: 1 / s['seconds'],
            'img/s',
        )
