"""airbench의 스크립트를 받아 적힌 그대로 한 번 돌린다. 받은 것은 저장소에 두지 않는다.

AIRBENCH가 KellerJordan/cifar10-airbench를 푼 폴더이면 거기서, 아니면 GitHub에서 읽는다.
GPU에서는 아무것도 고치지 않는다. CPU에서는 CUDA에서만 되는 것(반정밀도, 컴파일,
CUDA의 시계)만 바꾸고, 프로세서가 bf16을 하드웨어로 계산하면 앞으로 계산을 bf16
autocast로 한다. 그렇지 않은 프로세서에서는 Muon의 bf16도 32비트로 바꾼다(흉내 내면 수십
배 느리다). 메모리 설정(`tune_cpu`)은 우리와 같다. 시간은 airbench의 규약대로
백색화, 학습, 여섯 번 보는 평가이고, 에포크마다의 평가는 빠진다.
"""

import json
import os
import re
import sys
import tempfile
import time
import types
import urllib.request
from contextlib import chdir
from pathlib import Path

import torch
from common import load, prepare

from cifar_lit.parts.hardware import best_precision
from cifar_lit.parts.pictures import CLASSES

COMMIT = 'f1c599c4af24aca803e3e65a6a7e52a502e09d0e'
ADDRESS = 'https://raw.githubusercontent.com/KellerJordan/cifar10-airbench'
SCRIPTS = {
    'airbench94': 'legacy/airbench94.py',
    'airbench94_muon': 'airbench94_muon.py',
    'airbench96': 'legacy/airbench96.py',
}
ON_CPU = (  # CUDA에서만 되는 말과 CPU에서의 말
    (r'\.half\(\)\.cuda\(\)|\.cuda\(\)', ''),
    (r'\.half\(\)', '.float()'),
    (r'load\(data_path.*?\)\n', "load(data_path, map_location='cpu')\n"),
    (r'@torch\.compile', ''),
    (r'torch\.cuda\.Event\(enable_timing=True\)', 'Clock()'),
    (r'torch\.cuda\.synchronize\(\)', 'None'),
)


class Clock:
    "CPU에서 `torch.cuda.Event` 대신 쓰는 시계"

    def record(self):
        self.at = time.perf_counter()

    def elapsed_time(self, end):
        return 1000 * (end.at - self.at)


def read_script(name):
    folder = os.environ.get('AIRBENCH')
    if folder:
        return Path(folder, SCRIPTS[name]).read_text()
    with urllib.request.urlopen(f'{ADDRESS}/{COMMIT}/{SCRIPTS[name]}') as reply:
        return reply.read().decode()


def import_script(name, on_gpu, mixed):
    "`__main__`을 돌리지 않고 불러온 모듈"
    source = read_script(name)
    for pattern, word in () if on_gpu else ON_CPU:
        source = re.sub(pattern, word, source)
    if not on_gpu and not mixed:
        source = source.replace('.bfloat16()', '.float()')
    module = types.ModuleType(name)
    module.Clock = Clock
    exec(compile(source, f'{name}.py', 'exec'), module.__dict__)
    return module


def in_16_bits(net):
    "앞으로 계산만 bf16 autocast로 한다."
    forward = net.forward

    def call(*args, **kwargs):
        with torch.autocast('cpu', torch.bfloat16):
            return forward(*args, **kwargs).float()

    net.forward = call
    return net


def save_pictures(dm, folder, limit=None):
    "airbench가 읽는 `cifar10/train.pt`와 `cifar10/test.pt`"
    Path(folder, 'cifar10').mkdir()
    for split, data in (('train', dm.cifar_train.dataset), ('test', dm.cifar_test)):
        some = torch.arange(0, len(data), max(1, len(data) // limit) if limit else 1)
        images = data.images[some].permute(0, 2, 3, 1).contiguous()
        saved = {'images': images, 'labels': data.labels[some]}
        saved['classes'] = list(CLASSES)
        torch.save(saved, Path(folder, 'cifar10', f'{split}.pt'))


def ready(name):
    "`run(seed)`를 부르면 한 번 학습하는 함수. 사진은 지금 폴더의 cifar10/에 있다"
    on_gpu = torch.cuda.is_available()
    mixed = not on_gpu and best_precision() == 'bf16-mixed'
    module, told = import_script(name, on_gpu, mixed), []
    module.print_training_details = lambda values, is_final_entry: told.append(
        {key: value for key, value in values.items() if type(value) in (int, float)}
    )
    make = module.CifarNet if name == 'airbench94_muon' else module.make_net
    if name == 'airbench94_muon':
        net = make().to('cuda' if on_gpu else 'cpu')
        net = net.to(memory_format=torch.channels_last)
        if mixed:
            in_16_bits(net)
        if on_gpu:
            net.compile(mode='max-autotune')
    elif mixed:
        module.make_net = lambda: in_16_bits(make())

    def run(seed):
        told.clear()
        torch.manual_seed(seed)
        arguments = (seed, net) if name == 'airbench94_muon' else (seed,)
        accuracy = module.main(*arguments)
        return summary(told, accuracy)

    return run


def summary(told, accuracy):
    "시간(초), 정확도(%), 에포크마다의 (시간, 한 번 본 정확도)"
    clocks = [row.get('time_seconds', row.get('total_time_seconds')) for row in told]
    curve = zip(clocks[:-1], told[:-1])
    return dict(
        seconds=round(clocks[-1], 3),
        accuracy=round(100 * accuracy, 2),
        curve=[[round(at, 2), round(100 * row['val_acc'], 2)] for at, row in curve],
    )


def main(name, source, seed, limit):
    sys.argv[0] = __file__  # 스크립트가 자기 소스를 읽는다.
    prepare()
    dm = load(source)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        save_pictures(dm, folder, int(limit) or None)
        print(json.dumps(ready(name)(int(seed))))


if __name__ == '__main__':
    main(*sys.argv[1:])
