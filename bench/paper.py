"""(차) 종이 위의 계산: 작은 신경망 둘로 맞춘 빠르기로 더 큰 것을 예측한다.

신경망은 너비가 두 배씩 커지는 `FastNet`이고, 배치는 프로세스마다 32장, 스레드는
프로세스마다 하나이다. 폭마다 새 프로세스에서 되풀이해 재고, 되풀이마다 중앙값을 쓴다.
일마다 늘 드는 시간과 양에 비례하는 시간을 폭 16과 32에서 맞추어 64와 128을 예측한다.
프로세스 둘의 스텝은 계산과 주고받기 가운데 긴 것과 둘의 합 사이여야 한다.
"""

import json
import os
import socket
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from common import SCRATCH, in_new_process, middle, pick, row
from torch import distributed, nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_lit.parts.files import write_whole
from cifar_lit.parts.nets import FastNet
from cifar_lit.scale import Cluster, Job, estimate, step_seconds

TITLE = '종이 위의 계산'
MEASURED = {'source': 'random', 'threads': 1}
BATCH = 32
WIDTHS = (16, 32, 64, 128)
PARTS = {
    'compute': '계산',
    'all_reduce': '주고받기',
    'checkpoint': '체크포인트',
    'together': '프로세스 둘의 스텝',
}


def net_of(width):
    torch.manual_seed(0)
    net = FastNet((3, 32, 32), 10, (width, 2 * width, 4 * width), 32)
    return net.to(memory_format=torch.channels_last)


def repeated(work, times=5):
    "처음을 버린 `work()`의 초, 중앙값"
    spent = []
    for _ in range(times + 1):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent[1:])


def stepper(net):
    "한 스텝을 학습하는 함수"
    optimizer = torch.optim.Adam(net.parameters())
    x = torch.randn(BATCH, 3, 32, 32)
    y = torch.randint(0, 10, (BATCH,))

    def step():
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, optimizer


def one_rank(rank, width, port, results):
    "프로세스 둘 가운데 하나: 기울기만 한 것을 주고받고, 함께 학습한다."
    torch.set_num_threads(1)
    os.environ |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
    distributed.init_process_group('gloo', rank=rank, world_size=2)
    net = net_of(width)
    gradients = torch.zeros(sum(p.numel() for p in net.parameters()))
    exchange = repeated(lambda: distributed.all_reduce(gradients))
    step, _ = stepper(nn.parallel.DistributedDataParallel(net))
    together = repeated(step)
    if rank == 0:
        results.update(all_reduce=exchange, together=together)
    distributed.destroy_process_group()


def measured(width):
    "새 프로세스에서 폭 하나를 잰 것"
    torch.set_num_threads(1)
    net = net_of(width)
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 32, 32))
    step, optimizer = stepper(net)
    found = dict(compute=repeated(step))
    saved = {'state_dict': net.state_dict(), 'optimizer': optimizer.state_dict()}
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        path = Path(folder, 'last.ckpt')
        found['checkpoint'] = repeated(
            lambda: write_whole(path, partial(torch.save, saved))
        )
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(one_rank, (width, port, results), nprocs=2)
        found.update(results)
    found = {name: float(f'{spent:.4g}') for name, spent in found.items()}
    parameters = sum(p.numel() for p in net.parameters())
    return dict(flops=counter.get_total_flops(), parameters=parameters, **found)


def measure(source, quick):
    repeats, widths = (1, WIDTHS[:3]) if quick else (3, WIDTHS)
    return [
        dict(width=width, repeat=k, **in_new_process('paper.py', width))
        for k in range(repeats)
        for width in widths
    ]


def line(samples, widths, name, amount):
    "작은 폭 둘을 지나는 직선: 늘 드는 초, 초마다 하는 양"
    small, large = (pick(samples, width=width) for width in widths[:2])
    spent = middle(large, name) - middle(small, name)
    rate = (large[0][amount] - small[0][amount]) / spent
    return middle(small, name) - small[0][amount] / rate, rate


def points(samples):
    "큰 폭마다 예측한 초와 잰 초"
    widths = sorted({sample['width'] for sample in samples})
    overhead, flops = line(samples, widths, 'compute', 'flops')
    latency, sent = line(samples, widths, 'all_reduce', 'parameters')
    opening, written = line(samples, widths, 'checkpoint', 'parameters')
    rates = dict(flops=3 * BATCH * flops, network=4 * sent, disk=12 * written)
    fixed = dict(overhead=overhead, latency=latency, storage=float('inf'), price=0)
    cluster = Cluster(devices=2, **rates, **fixed)
    made = []
    for width in widths[2:]:
        found = pick(samples, width=width)
        sample = found[0]
        job = Job(1, 0, sample['flops'], sample['parameters'], 2 * BATCH, 1)
        parts = step_seconds(job, cluster)
        saving = opening + estimate(job, cluster)['checkpoint_seconds']
        predicted = dict(parts, checkpoint=saving, together=sum(parts.values()))
        for name in PARTS:
            point = dict(what=name, width=width, predicted=predicted[name])
            point['measured'] = middle(found, name)
            point['least'] = max(parts.values()) if name == 'together' else None
            made.append(point)
    return made


def rows(samples):
    made = []
    for point in sorted(points(samples), key=lambda p: list(PARTS).index(p['what'])):
        predicted, measured = 1000 * point['predicted'], 1000 * point['measured']
        value = f'예측 {predicted:.0f} ms, 잰 것 {measured:.0f} ms '
        value += f'({measured / predicted - 1:+.0%})'
        what = f'{PARTS[point["what"]]}, 폭 {point["width"]}'
        if point['least'] is None:
            made.append(row(what, value))
        else:
            least = 1000 * point['least']
            target = f'{least:.0f}~{predicted:.0f} ms'
            made.append(row(what, value, target, least <= measured <= predicted))
    return made


def draw(samples, ax):
    made = points(samples)
    for name in PARTS:
        found = pick(made, what=name)
        predicted = [point['predicted'] for point in found]
        ax.plot(predicted, [point['measured'] for point in found], 'o-', label=name)
    ends = [min(p['predicted'] for p in made), max(p['predicted'] for p in made)]
    ax.plot(ends, ends, color='gray', lw=1)
    ax.set(xscale='log', yscale='log', xlabel='predicted, s', ylabel='measured, s')
    ax.legend(frameon=False, fontsize=8)


if __name__ == '__main__':
    print(json.dumps(measured(int(sys.argv[1]))))
