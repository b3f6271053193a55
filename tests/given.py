"""시험이 함께 쓰는 것.

`conftest`에 두면 `nbs/conftest.py`와 이름이 같아, 함께 돌릴 때 서로를 가린다.
"""

import csv
import os
from pathlib import Path

from PIL import Image

from cifar_lit.parts.pictures import CLASSES
from cifar_lit.parts.toy import toy_pictures

ROOT = Path(__file__).parent.parent
os.environ.update(WANDB_SILENT='true', WANDB_MODE='offline')
ENV = dict(os.environ)  # 이 프로세스의 wandb가 자식에게 물려줄 변수를 더하기 전의 것


def toy_album(folder):
    "클래스가 셋인 사진 폴더: 학습 60장, 테스트 30장"
    images, labels = toy_pictures(300)
    for k in range(3):
        for i, image in enumerate(images[labels == k]):
            target = folder / ('train' if i < 20 else 'test') / CLASSES[k]
            target.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            picture.resize((48, 40)).save(target / f'{i}.png')
    return folder


def read_rows(path):
    "`metrics.csv`의 줄마다 이름과 글"
    with open(path, encoding='utf-8') as file:
        return list(csv.DictReader(file))
