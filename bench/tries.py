"""`fast`보다 적은 계산으로 같은 정확도에: 해 본 것을 모두, 실패한 것까지.

`FastNet`과 Muon의 학습을 손으로 쓴 루프로 돌리며 설정을 바꾼다. 정확도는 학습 사진에서
떼어 둔 5,000장에서 여섯 번 보고 잰 것이라, 여기서 고른 것을 테스트 사진으로 다시 잴 수
있다. 계산량은 앞으로 한 번의 곱셈과 덧셈에 셋(앞뒤)을 곱해 학습 내내 더한 것이다.
시간은 스레드 하나로 다른 일과 함께 돌며 잰 것이라 정확도와 계산량만 비교하고, 끝까지의
시간은 `race`가 잰다.

멈추었다 이어서 할 수 있다. 표본은 한 번 끝날 때마다 `tries.json`에 남는다.
2026년 11월 27일의 일곱 줄은 설정이 같은 앞선 스크립트로 잰 것이라, 섞는 순서와 증강의
난수가 이 파일의 것과 다르다.
"""

import statistics
import time

import torch
import torch.nn.functional as F
from common import load, pick, row, spread
from torch.utils.flop_counter import FlopCounterMode

from cifar_lit.parts.augment import Augment
from cifar_lit.parts.nets import FastNet, shrink, weighted_views
from cifar_lit.parts.pictures import normalize
from cifar_lit.speed import MuonWithAdam

TITLE = '해 본 것'
RESUMES = True
MEASURED = {'threads': 1}
HELD = 5000  # 떼어 둔 사진
NARROW, WIDE = (32, 128, 128), (64, 256, 256)
# 단계마다 (스텝의 비율, 이미지를 줄인 한 변, 잘라 낸 한 변). 자르지 않으면 32
WHOLE = ((1.0, 32, 32),)
PLAIN = dict(
    widths=NARROW,
    epochs=2.0,
    batch=500,
    lr=0.15,
    other_lr=0.03,
    momentum=0.6,
    smoothing=0.2,
    warmup=0.1,
    phases=WHOLE,
    size=32,  # 평가할 때의 한 변
)
TRIES = {
    '2 epochs': {},
    'batch 250': {'batch': 250},
    '24 px': {'phases': ((1.0, 24, 32),), 'size': 24},
    '24 px, tested at 28': {'phases': ((1.0, 24, 32),), 'size': 28},
    '20 then 32 px': {'phases': ((0.6, 20, 32), (0.4, 32, 32))},
    'crop to 28 px': {'phases': ((1.0, 28, 28),)},
    '20 then crop to 28 px': {'phases': ((0.6, 20, 32), (0.4, 28, 28))},
    'wide, 24 px, 4 epochs': {
        'widths': WIDE,
        'epochs': 4.0,
        'phases': ((1.0, 24, 32),),
        'size': 24,
    },
    'wide, 28 px, 3 epochs': {
        'widths': WIDE,
        'epochs': 3.0,
        'phases': ((1.0, 28, 32),),
        'size': 28,
    },
    'wide, 2 epochs': {'widths': WIDE},
    'wide, 20, 24, 28 px, 4 epochs': {
        'widths': WIDE,
        'epochs': 4.0,
        'phases': ((0.5, 20, 32), (0.25, 24, 32), (0.25, 28, 32)),
        'size': 28,
    },
}


def split(source):
    "학습할 (이미지, 라벨), 떼어 둔 (이미지, 라벨)"
    data = load(source).cifar_train.dataset
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    kept, used = order[:HELD], order[HELD:]
    return (
        (data.images[used], data.labels[used]),
        (data.images[kept], data.labels[kept]),
    )


def crop(images, side, generator):
    "배치째 아무 데서나 `side` × `side`로 잘라 낸다."
    n, _, whole, _ = images.shape
    if side == whole:
        return images
    starts = torch.randint(0, whole - side + 1, (2, n, 1), generator=generator)
    rows, columns = starts + torch.arange(side)
    channels = torch.arange(3)[None, :, None, None]
    first = torch.arange(n)[:, None, None, None]
    return images[first, channels, rows[:, None, :, None], columns[:, None, None, :]]


def rate(step, steps, warmup):
    "올렸다가 0까지 내리는 학습률의 비율"
    if step < warmup * steps:
        return (step + 1) / (warmup * steps)
    return (1 - step / steps) / (1 - warmup)


def phase_at(step, steps, phases):
    done = 0.0
    for share, size, side in phases:
        done += share
        if step < round(done * steps):
            return size, side
    return size, side


def gflops(net, sizes):
    "크기마다 앞으로 한 번 계산할 때의 곱셈과 덧셈, 10억 번"
    found = {}
    for size in sizes:
        net.size = size
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net.logits(torch.zeros(1, 3, size, size))
        found[size] = counter.get_total_flops() / 1e9
    return found


def train(pictures, seed, settings):
    "학습한 신경망, 스텝 수, 앞으로 계산한 양(10억 번)"
    images, labels = pictures
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    augment = Augment('alternating', crop=2, seed=seed)
    net = FastNet((3, 32, 32), 10, settings['widths'])
    net.to(memory_format=torch.channels_last)
    cost = gflops(net.eval(), {size for _, size, _ in settings['phases']})
    net.train()
    net.size = settings['phases'][0][1]
    net.init_whitening(normalize(images[:2000]))
    learned = [weight for weight in net.parameters() if weight.requires_grad]
    kernels = [weight for weight in learned if weight.ndim == 4]
    others = [weight for weight in learned if weight.ndim < 4]
    optimizer = MuonWithAdam(kernels, others, settings['lr'], settings['momentum'])
    batch = settings['batch']
    per_epoch = len(labels) // batch
    steps, spent = round(settings['epochs'] * per_epoch), 0.0
    for step in range(steps):
        epoch, k = divmod(step, per_epoch)
        if k == 0:
            order = torch.randperm(len(labels), generator=generator)
        some = order[k * batch : (k + 1) * batch]
        size, side = phase_at(step, steps, settings['phases'])
        x = augment(images[some], some.numpy(), epoch)
        net.size = size
        x = shrink(normalize(crop(x, side, generator)), size)
        logits = net.logits(x)
        smoothing = settings['smoothing']
        F.cross_entropy(logits, labels[some], label_smoothing=smoothing).backward()
        scale = rate(step, steps, settings['warmup'])
        rates = settings['other_lr'], settings['lr']
        for group, lr in zip(optimizer.param_groups, rates):
            group['lr'] = lr * scale
        optimizer.step()
        optimizer.zero_grad()
        spent += batch * cost[size]
    return net, steps, spent


@torch.no_grad()
def accuracy(net, pictures, size):
    "여섯 번 본 정확도, %"
    net.eval()
    net.size, hits = size, 0
    for x, y in zip(*(part.split(500) for part in pictures)):
        seen = weighted_views(normalize(x), 6)
        logits = sum(weight * net.logits(view) for weight, view in seen)
        hits += (logits.argmax(1) == y).sum().item()
    return 100 * hits / len(pictures[1])


def measure(source, quick, done, save):
    torch.set_num_threads(MEASURED['threads'])
    used, held = split(source)
    if quick:
        used, held = ([part[:2000] for part in data] for data in (used, held))
    for name, changed in TRIES.items():
        if pick(done, name=name, repeat=0):
            continue
        settings = {**PLAIN, **changed}
        start = time.perf_counter()
        net, steps, spent = train(used, 0, settings)
        seconds = time.perf_counter() - start
        done.append(
            dict(
                name=name,
                repeat=0,
                seconds=round(seconds, 1),
                steps=steps,
                pflop=round(3 * spent / 1e6, 4),
                accuracy=round(accuracy(net, held, settings['size']), 2),
                settings=settings,
            )
        )
        save(done)
    return done


def rows(samples):
    made = []
    for name in dict.fromkeys(sample['name'] for sample in samples):
        found = pick(samples, name=name)
        cost = statistics.median(sample['pflop'] for sample in found)
        seen = spread([sample['accuracy'] for sample in found])
        made.append(row(name, f'{cost:.3f} PFLOP, 떼어 둔 사진 {seen} %'))
    return made


def draw(samples, ax):
    for k, sample in enumerate(samples):
        style = {'color': f'C{k}', 'label': sample['name']}
        ax.plot(sample['pflop'], sample['accuracy'], 'o', **style)
    ax.set(xscale='log', xlabel='training, PFLOP', ylabel='held-out accuracy, %')
    ax.legend(frameon=False, fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
