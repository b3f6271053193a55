"""(카) 메모리보다 많은 사진: 조각으로 읽는 것과 메모리에 든 것. 배치 128, 장난감 그림.

2만 장을 되풀이한 6만 장과 백만 장을 `cifar-lit shard`로 쓰고, 새 프로세스마다 세 에포크
(백만 장은 두 에포크)를 읽는다. 마지막 에포크의 초당 사진 수와, 라이브러리를 모두 불러온
뒤에 늘어난 메모리 가운데 가장 큰 것을 잰다. S3는 이 컴퓨터에 띄운 moto이고, 조각은 첫
에포크에 받는다. 첫 에포크의 빠르기도 적는다. 막 쓴 파일이라 운영 체제의 캐시에 있다.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
from common import (
    SCRATCH,
    draw_bars,
    faster,
    in_new_process,
    middle,
    pick,
    prepare,
    row,
)
from PIL import Image

from cifar_lit.data import CIFAR10DataModule
from cifar_lit.parts.toy import toy_pictures

TITLE = '조각'
MEASURED = {'source': 'toy', 'threads': 1}
PLOTS = SIZES = (60_000, 1_000_000)
BATCH, DRAWN = 128, 20_000
MEMORY, DISK, S3 = 'memory', 'shards on disk', 'shards on S3'
NAMES = (MEMORY, DISK, S3)


def write_album(folder, n):
    "그림 `DRAWN`장을 링크로 되풀이한 사진 폴더. 학습과 테스트로 나눈다."
    images, labels = toy_pictures(min(n, DRAWN))
    for k in range(10):
        Path(folder, 'train', str(k)).mkdir(parents=True)
        Path(folder, 'test', str(k)).mkdir(parents=True)
    for i, (image, label) in enumerate(zip(images, labels.tolist())):
        first = Path(folder, 'train', str(label), f'{i}.png')
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(first)
        for copy in range(i + len(labels), n, len(labels)):
            os.link(first, first.with_name(f'{copy}.png'))
        if i < 100:
            os.link(first, Path(folder, 'test', str(label), first.name))


def resident(kind):
    "이 프로세스의 메모리, MiB. 지금의 `VmRSS`나 가장 컸던 `VmHWM`"
    with open('/proc/self/status') as file:
        [line] = [line for line in file if line.startswith(kind)]
    return int(line.split()[1]) / 1024


def forget_peak():
    Path('/proc/self/clear_refs').write_text('5')


def opened(address, n, data_dir):
    "준비한 데이터 모듈. `address`가 없으면 `n`장을 메모리에 든 것"
    source = f'litdata:{address}' if address else 'toy'
    dm = CIFAR10DataModule(BATCH, data_dir, source=source, val_size=0.01)
    if not address:
        images, labels = toy_pictures(min(n, DRAWN))
        times = n // len(labels)
        pictures = images.repeat(times, 1, 1, 1), labels.repeat(times)
        dm.source.load = lambda split: pictures
    dm.prepare_data()
    dm.setup('fit')
    return dm


def read(address, n, data_dir):
    "에포크마다의 초당 사진 수와 불러온 뒤에 는 메모리"
    for name in ('boto3', 'litdata', 'xxhash'):
        import_module(name)
    before = resident('VmRSS')
    forget_peak()
    loader = opened(address, n, data_dir).train_dataloader()
    if not address:
        forget_peak()  # 그림을 되풀이할 때 잠깐 쓴 것
    rates = []
    for _ in range(3 if n <= SIZES[0] else 2):
        start, count = time.perf_counter(), 0
        for _, labels in loader:
            count += len(labels)
        rates.append(round(count / (time.perf_counter() - start)))
    first, last = rates[0], rates[-1]
    return dict(first=first, rate=last, memory=round(resident('VmHWM') - before))


@contextmanager
def s3_server(shards):
    "조각을 올려 둔 S3 서버"
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address='127.0.0.1', port=0)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        'AWS_ENDPOINT_URL': f'http://{host}:{port}',
        'AWS_ACCESS_KEY_ID': 'toy',
        'AWS_SECRET_ACCESS_KEY': 'toy',
        'AWS_DEFAULT_REGION': 'us-east-1',
    }
    client = boto3.client('s3')
    client.create_bucket(Bucket='pictures')
    for path in Path(shards).rglob('*.*'):
        client.upload_file(str(path), 'pictures', str(path.relative_to(shards)))
    try:
        yield 's3://pictures'
    finally:
        server.stop()


def measured(shards, n, repeats):
    "크기 하나의 표본"
    samples = []
    with s3_server(shards) as address:
        places = {MEMORY: '', DISK: shards, S3: address}
        for repeat in range(repeats):
            for name, place in places.items():
                with tempfile.TemporaryDirectory() as cache:
                    found = in_new_process('stream.py', place, n, cache)
                samples.append(dict(name=name, pictures=n, repeat=repeat, **found))
    return samples


def measure(source, quick):
    samples = []
    for n, repeats in ((2000, 1),) if quick else zip(SIZES, (5, 3)):
        with tempfile.TemporaryDirectory(dir=SCRATCH) as place:
            album, shards = Path(place, 'album'), Path(place, 'shards')
            write_album(album, n)
            start = time.perf_counter()
            subprocess.run(['cifar-lit', 'shard', album, shards], check=True)
            spent = round(time.perf_counter() - start, 1)
            samples.append(dict(name='shard', pictures=n, seconds=spent))
            samples += measured(shards, n, repeats)
    return samples


def rows(samples):
    made = []
    for n in sorted({sample['pictures'] for sample in samples}):
        found = pick(samples, pictures=n)
        [written] = pick(found, name='shard')
        made.append(row(f'{n:,}장 쓰기', f'{written["seconds"]:.0f}초'))
        for name in NAMES:
            ours = pick(found, name=name)
            rate, first = (middle(ours, key) for key in ('rate', 'first'))
            memory = max(sample['memory'] for sample in ours)
            value = f'{rate:,.0f} img/s (첫 에포크 {first:,.0f}), {memory:,.0f} MiB'
            fits = None if name == MEMORY else memory < 1024
            made.append(
                row(
                    f'{n:,}장, {name}',
                    value,
                    '' if fits is None else '1 GiB 이하',
                    fits,
                )
            )
        for name in NAMES[1:]:
            ratio, low, high = faster(found, name, MEMORY, 'rate')
            what = f'{n:,}장, 메모리보다 몇 배 걸리나: {name}'
            value = f'{ratio:.2f}배 ({low:.2f}~{high:.2f})'
            made.append(row(what, value, '1.3배 이하', ratio <= 1.3))
    return made


def draw(samples, axes):
    for ax, n in zip(axes, sorted({sample['pictures'] for sample in samples})):
        found = pick(samples, pictures=n)
        draw_bars(ax, found, NAMES, lambda sample: sample['rate'], 'img/s')
        ax.set_title(f'{n:,} pictures')


if __name__ == '__main__':
    place, n, cache = sys.argv[1:]
    prepare()
    torch.set_num_threads(1)
    print(json.dumps(read(place, int(n), cache)))
