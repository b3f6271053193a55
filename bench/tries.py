"""적은 계산으로 높은 정확도에: `fast`의 설정을 고르느라 해 본 것을 모두.

`FastNet`과 Muon의 학습을 손으로 쓴 루프로 돌리며 설정을 바꾼다. 정확도는 학습 사진에서
떼어 둔 5,000장에서 여섯 번 보고 잰 것이라, 여기서 고른 것을 테스트 사진으로 다시 잴 수
있다. 큰 신경망의 줄만 사진을 모두 학습하고 테스트 사진에서 쟀다. 계산량은 앞으로 한
번의 곱셈과 덧셈에 셋(앞뒤)을 곱해 학습 내내 더한 것이고, 합성곱은 Winograd로 곱했어도
정의대로 센다. 시간은 다른 일과 함께 돌며 잰 것이라 정확도와 계산량만 비교하고, 끝까지의
시간은 `race`가 잰다.

멈추었다 이어서 할 수 있다. 표본은 한 번 끝날 때마다 `tries.json`에 남는다.
2026년 11월 27일의 줄(`batch 250`, `24 px`, `20 then 32 px`, `crop`)은 설정이 같은 앞선
스크립트로 잰 것이라 섞는 순서와 증강의 난수가 이 파일의 것과 다르다. 그 스크립트로
잰 `2 epochs`도 남겨 두었다('earlier script'). 둘의 차이만 한 것은 우연일 수 있다.
'by race'의 줄은 그 설정을 `RecordModel`(SGD)이나 `FastModel`(Adam)에 주어, 1,000장을
떼어 두고 `race`로 잰 것이다. 'bias for 3 epochs'는 첫 층의 편향을 세 에포크만 배웠다.
'loss averaged'의 두 줄은 손실의 합에 맞춘 airbench의 학습률을 평균에 쓴 잘못으로, SGD의
다른 줄이 제대로 된 것이다. `muon`이 '32 bits'인 표본은 Muon의 행렬을 32비트로, 다른
표본은 bf16으로 곱했다. 두 줄은 시드 0을 둘 다로 재었다(`repeat` 0과 2).
'narrow fast'의 줄은 좁은 신경망을 `fast`의 앞선 설정(배치만 1,000)으로, 계산량을
0.049 PFLOP에 맞추어 학습한 것이다. 'fast settings'의 줄(0.046 PFLOP)은 앞선 스크립트로
재어, 크기와 학습률을 스텝이 아니라 계산량의 비율로 정했다. 작은 이미지를 더 오래 본
것이라 앞의 줄과 비교할 수 없다.
두 가지 줄 모두 bf16 컴퓨터에서 앞으로의 계산도 bf16으로 했다.
`TRIES`에도 없고 'by race'도 아닌 이름은 앞선 스크립트로만 쟀다.
쉬운 사진은 그 사진을 마지막에 본 손실로 정한다. 'easiest third'는 배우기의 3분의 1이
지난 뒤로 가장 쉬운 30 %를 열에 일곱 번
건너뛰고, 손실의 무게는 그대로 둔다. 'pooled before'는 둘째 블록의 첫 합성곱과 풀링의
차례를 바꾼 것이다. 'half strided'는 블록의 첫 합성곱을 한쪽으로 한 칸씩 건너뛰며 하고
풀링은 다른 쪽으로만, '4x4'는 풀링 없이 4×4 합성곱을 두 칸마다 한 것이다. 계산량이
같으면 더 여러 번 볼 수 있지만 큰 신경망의 한 스텝은 계산량만큼 줄지 않는다.
'learns'는 그만큼 지나면 블록을 얼리고, 하지 않은 뒤로의 계산은 계산량에서 뺀다.
'int8'은 앞으로의 곱과 입력의 기울기를(첫 합성곱은 빼고) 8비트 정수로 곱한다. 'moving
average'는 가중치의 이동 평균으로 잰다. 'brightness and contrast'는 14 %까지 무작위로
바꾸고, 'NorMuon'은 직교로 만든 걸음을 행마다 크기의 이동 평균으로 나눈다. `looks`는
처음 본 확률이 낮은 만큼(`share`)만 여섯 번 본 정확도이다. '28 px, by race'는 20, 24,
28픽셀로 키우고 망설인 이미지만 여섯 번 본 것이다. '16 epochs, by race'는 지금의
`fast`를 `--trainer.max_epochs 16`으로 늘려 잰 것으로, 처음 몇 분은 시험과
노트북을 함께 돌렸다.
표본의 `wide_step_seconds`는 큰 신경망(배치 2,000)의 한 스텝을 크기마다 네 번 나란히
잰 것이다.
"""

import math
import statistics
import time
from datetime import date

import torch
import torch.nn.functional as F
from common import load, pick, row, spread
from torch.utils.flop_counter import FlopCounterMode

from cifar_lit.parts.augment import Augment
from cifar_lit.parts.hardware import best_precision
from cifar_lit.parts.nets import FastNet, shrink, weighted_views
from cifar_lit.parts.pictures import normalize
from cifar_lit.parts.record import MuonWithSGD, record_groups
from cifar_lit.speed import MuonWithAdam

TITLE = '해 본 것'
RESUMES = True
MEASURED = {'threads': 1}
HELD = 5000  # 떼어 둔 사진
NARROW, WIDE = (32, 128, 128), (64, 256, 256)
# 단계마다 (스텝의 비율, 이미지를 줄인 한 변, 잘라 낸 한 변). 자르지 않으면 32
WHOLE = ((1.0, 32, 32),)
GROWING = ((0.35, 20, 32), (0.3, 24, 32), (0.35, 32, 32))
PLAIN = dict(
    widths=NARROW,
    epochs=2.0,
    batch=500,
    lr=0.15,
    other_lr=0.03,
    momentum=0.6,
    optimizer='adam',  # 커널이 아닌 것의 옵티마이저
    prune=0.0,  # 쉬운 사진을 빼는 비율
    ns_steps=3,
    activation='gelu',
    whitening_epochs=None,
    smoothing=0.2,
    warmup=0.1,
    phases=WHOLE,
    size=32,  # 평가할 때의 한 변
    all_pictures=False,  # 떼어 두지 않고 학습해 테스트 사진에서 잰다
)
BIG_BATCH = {'optimizer': 'sgd', 'batch': 2000, 'lr': 0.24, 'warmup': 0.0}
AS_FAST = dict(  # `fast`의 앞선 설정에서 배치만 줄인 것
    epochs=8.0,
    batch=1000,
    lr=0.24,
    other_lr=0.06,
    phases=((0.3333, 20, 32), (0.3333, 26, 32), (0.3334, 32, 32)),
    whitening_epochs=3,
)
BETTER = {**AS_FAST, 'activation': 'silu', 'ns_steps': 5}
SMALLER = ((0.3333, 20, 32), (0.3333, 24, 32), (0.3334, 28, 32))
TRIES = {
    '2 epochs': {},
    'batch 250': {'batch': 250},
    '24 px': {'phases': ((1.0, 24, 32),), 'size': 24},
    '24 px, tested at 28': {'phases': ((1.0, 24, 32),), 'size': 28},
    '20 then 32 px': {'phases': ((0.6, 20, 32), (0.4, 32, 32))},
    'crop to 28 px': {'phases': ((1.0, 28, 28),)},
    '20 then crop to 28 px': {'phases': ((0.6, 20, 32), (0.4, 28, 28))},
    # 여기부터는 계산량이 모두 '2 epochs'와 거의 같다.
    'easy half skipped': {'epochs': 2.3, 'prune': 0.5},
    '20, 24, 32 px': {
        'epochs': 3.3,
        'phases': GROWING,
    },
    '24 then 32 px': {'epochs': 2.7, 'phases': ((0.5, 24, 32), (0.5, 32, 32))},
    'SGD beside Muon': {'optimizer': 'sgd'},
    'SGD, batch 2000': BIG_BATCH,
    'rate 0.1': {'lr': 0.1},
    'rate 0.24': {'lr': 0.24},
    'smoothing 0.1': {'smoothing': 0.1},
    'no warm-up': {'warmup': 0.0},
    'easy half skipped, 20, 24, 32 px': {
        'epochs': 3.6,
        'prune': 0.5,
        'phases': GROWING,
    },
    '16, 24, 32 px': {
        'epochs': 3.5,
        'phases': ((0.35, 16, 32), (0.3, 24, 32), (0.35, 32, 32)),
    },
    'SGD, 20, 24, 32 px': {
        'optimizer': 'sgd',
        'epochs': 3.3,
        'phases': GROWING,
    },
    'rate 0.24, 20, 24, 32 px': {'lr': 0.24, 'epochs': 3.3, 'phases': GROWING},
    'narrower, 3.2 epochs': {'widths': (24, 96, 96), 'epochs': 3.2},
    'wider, 1.3 epochs': {'widths': (40, 160, 160), 'epochs': 1.3},
    # 여기부터는 0.049 PFLOP
    'narrow fast': AS_FAST,
    'narrow fast, SiLU': {**AS_FAST, 'activation': 'silu'},
    'narrow fast, Newton-Schulz 5 times': {**AS_FAST, 'ns_steps': 5},
    'narrow fast, SiLU, Newton-Schulz 5 times': BETTER,
    'narrow fast, smoothing 0.1': {**AS_FAST, 'smoothing': 0.1},
    'narrow fast, batch 500': {
        **AS_FAST,
        'batch': 500,
        'lr': 0.17,
        'other_lr': 0.04,
    },
    'narrow fast, SiLU, Newton-Schulz 5 times, 20, 24, 28 px': {
        **BETTER,
        'epochs': 10.0,
        'phases': SMALLER,
        'size': 28,
    },
    # 고른 것을 큰 신경망에서
    'fast net, 10 epochs, 20, 24, 32 px': {
        'widths': WIDE,
        'epochs': 10.0,
        'phases': GROWING,
        'all_pictures': True,
    },
    'fast net, 13 epochs, 18, 24, 32 px': {
        'widths': WIDE,
        'epochs': 13.0,
        'phases': ((0.34, 18, 32), (0.33, 24, 32), (0.33, 32, 32)),
        'all_pictures': True,
    },
    'fast net, SGD, batch 2000, 12 epochs, 20, 26, 32 px': {
        **BIG_BATCH,
        'widths': WIDE,
        'epochs': 12.0,
        'phases': ((0.3334, 20, 32), (0.3333, 26, 32), (0.3333, 32, 32)),
        'all_pictures': True,
    },
}
SEEDS = {'2 epochs': 2, '20, 24, 32 px': 2, 'narrow fast': 3}  # 나머지는 하나
LOOKS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)  # 여섯 번 볼 비율


def short_floats():
    "bf16이 빠른 컴퓨터이면 bf16으로"
    bf16 = best_precision() == 'bf16-mixed'
    return torch.autocast('cpu', torch.bfloat16, enabled=bf16)


def split(dm, all_pictures=False):
    "학습할 (이미지, 라벨), 정확도를 잴 (이미지, 라벨)"
    data = dm.cifar_train.dataset
    if all_pictures:
        return (data.images, data.labels), (dm.cifar_test.images, dm.cifar_test.labels)
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


def rate(done, warmup):
    "올렸다가 0까지 내리는 학습률의 비율. `done`은 지나온 비율"
    if done < warmup:
        return max(0.02, done / warmup)  # 첫 스텝도 배운다.
    return (1 - done) / (1 - warmup)


def phase_at(done, phases):
    end = 0.0
    for share, size, side in phases:
        end += share
        if done < end:
            return size, side
    return size, side


def kept(losses, settings, epoch, generator):
    "이번 에포크에 볼 사진과 손실의 무게 (InfoBatch, arXiv 2303.04947)"
    weights = torch.ones(len(losses))
    chosen = torch.ones(len(losses), dtype=torch.bool)
    if settings['prune'] and 1 <= epoch < settings['epochs'] - 1:
        easy = losses < losses.mean()
        chance = torch.rand(len(losses), generator=generator)
        chosen = ~easy | (chance >= settings['prune'])
        weights[easy] = 1 / (1 - settings['prune'])
    return chosen.nonzero().flatten(), weights


def batches(losses, settings, generator):
    "지나온 비율, 에포크, 사진의 번호, 무게"
    batch, epochs = settings['batch'], settings['epochs']
    for epoch in range(math.ceil(epochs)):
        some, weights = kept(losses, settings, epoch, generator)
        some = some[torch.randperm(len(some), generator=generator)]
        per_epoch = len(some) // batch
        for k in range(per_epoch):
            done = (epoch + k / per_epoch) / epochs
            if done >= 1:
                return
            picked = some[k * batch : (k + 1) * batch]
            yield done, epoch, picked, weights[picked]


def optimizer_for(net, settings):
    learned = [weight for weight in net.parameters() if weight.requires_grad]
    kernels = [weight for weight in learned if weight.ndim == 4]
    others = [weight for weight in learned if weight.ndim < 4]
    rates = settings['lr'], settings['momentum']
    if settings['optimizer'] == 'adam':
        return MuonWithAdam(
            kernels, others, *rates, settings['other_lr'], settings['ns_steps']
        )
    decay = 2e-6 * settings['batch']  # airbench94_muon의 값들
    return MuonWithSGD(*record_groups(net, 0.053, 0.67, decay), *rates)


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
    activation = settings['activation']
    net = FastNet((3, 32, 32), 10, settings['widths'], activation=activation)
    net.to(memory_format=torch.channels_last)
    cost = gflops(net.eval(), {size for _, size, _ in settings['phases']})
    net.train()
    net.train_size = settings['phases'][0][1]
    net.init_whitening(normalize(images[:2000]))
    optimizer = optimizer_for(net, settings)
    peaks = [group['lr'] for group in optimizer.param_groups]
    losses = torch.zeros(len(labels))
    steps, spent = 0, 0.0
    for done, epoch, some, weights in batches(losses, settings, generator):
        size, side = phase_at(done, settings['phases'])
        x = augment(images[some], some.numpy(), epoch)
        net.size = size
        x = shrink(normalize(crop(x, side, generator)), size)
        with short_floats():
            logits = net.logits(x).float()
        smoothing = {'label_smoothing': settings['smoothing'], 'reduction': 'none'}
        loss = F.cross_entropy(logits, labels[some], **smoothing)
        losses[some] = loss.detach()
        loss = (loss * weights).sum()
        # airbench94_muon의 학습률은 손실의 합에 맞춘 것이다.
        (loss if settings['optimizer'] == 'sgd' else loss / len(some)).backward()
        last = settings['whitening_epochs']
        if last is not None and epoch >= last:
            net.whiten.bias.grad = None
        scale = rate(done, settings['warmup'])
        for group, peak in zip(optimizer.param_groups, peaks):
            group['lr'] = peak * scale
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        spent += len(some) * cost[size]
    return net, steps, spent


@torch.no_grad()
def seen_six_times(net, pictures, size):
    "그대로 한 번 본 로짓, 여섯 번 본 로짓"
    net.eval()
    net.size, once, often = size, [], []
    with short_floats():
        for x in pictures[0].split(500):
            seen = weighted_views(normalize(x), 6)
            logits = [net.logits(view).float() for _, view in seen]
            once.append(logits[0])
            often.append(sum(weight * some for (weight, _), some in zip(seen, logits)))
    return torch.cat(once), torch.cat(often)


def accuracy(logits, labels):
    "정확도, %"
    return round(100 * (logits.argmax(1) == labels).float().mean().item(), 2)


def looked_again(once, often, labels):
    "처음 본 확률이 낮은 만큼만 여섯 번 본 정확도"
    made, sure = [], once.softmax(dim=1).amax(dim=1)
    for share in LOOKS:
        confidence = sure.quantile(share).item() if share else 0.0
        mixed = torch.where((sure <= confidence)[:, None], often, once)
        found = dict(share=share, accuracy=accuracy(mixed, labels))
        made.append(found | {'confidence': round(confidence, 3)})
    return made


def measure(source, quick, done, save):
    torch.set_num_threads(MEASURED['threads'])
    dm = load(source)
    runs = [(name, seed) for name in TRIES for seed in range(SEEDS.get(name, 1))]
    for name, seed in runs:
        if pick(done, name=name, repeat=seed):
            continue
        settings = {**PLAIN, **TRIES[name]}
        used, held = split(dm, settings['all_pictures'])
        if quick:
            used, held = ([part[:2000] for part in data] for data in (used, held))
        start = time.perf_counter()
        net, steps, spent = train(used, seed, settings)
        seconds = time.perf_counter() - start
        once, often = seen_six_times(net, held, settings['size'])
        done.append(
            dict(
                name=name,
                repeat=seed,
                seed=seed,
                muon='bf16' if best_precision() == 'bf16-mixed' else '32 bits',
                date=str(date.today()),
                seconds=round(seconds, 1),
                steps=steps,
                pflop=round(3 * spent / 1e6, 4),
                accuracy=accuracy(often, held[1]),
                looks=looked_again(once, often, held[1]),
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
        tested = found[0]['settings'].get('all_pictures')
        where = '테스트 사진' if tested else '떼어 둔 사진'
        made.append(row(name, f'{cost:.3f} PFLOP, {where} {seen} %'))
    return made


def draw(samples, ax):
    for label, tested in (('held-out pictures', False), ('test pictures', True)):
        found = [
            s for s in samples if s['settings'].get('all_pictures', False) is tested
        ]
        ax.plot(
            [sample['pflop'] for sample in found],
            [sample['accuracy'] for sample in found],
            'o',
            label=label,
            alpha=0.6,
        )
    ax.set(xscale='log', xlabel='training, PFLOP', ylabel='accuracy, %')
    ax.legend(frameon=False, fontsize=8)
