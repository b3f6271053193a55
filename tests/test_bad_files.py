"""망가지거나 악의로 만든 파일: 압축 파일, 배치, 사진 폴더의 캐시, 체크포인트.

md5를 확인하지 않고 읽는다. 파일은 `bad_files.py`가 만들고, 하나씩 fork해서 읽는다.
"""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import bad_files
import numpy as np
import pytest
import torch

from cifar_lit.parts.archive import BATCHES, archive_members, read_archive, read_batches
from cifar_lit.parts.checkpoints import read_checkpoint, verify_checkpoint
from cifar_lit.parts.files import InputError

if not Path('/proc/self/status').exists():
    pytest.skip('메모리를 /proc에서 잰다.', allow_module_level=True)

MOST_MEGABYTES = 200  # import한 뒤부터


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    "파일의 이름마다 읽은 결과. 폴더에 있는 것은 'in' 하나여야 한다."
    at = tmp_path_factory.mktemp('bad')
    command = [sys.executable, '-W', 'ignore', bad_files.__file__, str(at)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=at)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    found = {row['name']: row for row in rows}
    assert len(found) == len(rows)
    return at, found


def of_kind(found, kind):
    return {name: row for name, row in found.items() if name.startswith(f'{kind}-')}


def wrong(found, good):
    return {name: row for name, row in found.items() if not good(row)}


def test_a_bad_archive_ends_in_one_error_that_says_what_to_do(results):
    found = of_kind(results[1], 'archive')
    assert len(found) >= 60

    def good(row):
        named = 'in/cifar-10-python.tar.gz' in row['message']
        return (
            row['kind'] == 'InputError' and named and '다시 받으세요' in row['message']
        )

    assert wrong(found, good) == {}


def test_a_bad_cache_is_built_again(results):
    found = of_kind(results[1], 'cache')
    assert len(found) >= 30
    assert wrong(found, lambda row: row['kind'] == 'same' and row['rebuilt']) == {}


# 모양은 맞아서, 텐서를 만들어 보아야 안다.
ONLY_WHEN_READ = {
    'checkpoint-torchscript',
    'checkpoint-not-a-state',
    'checkpoint-pickle-record-size',
    'checkpoint-pickle-no-record',
    'checkpoint-pickle-no-storage-type',
    'checkpoint-pickle-long-offset',
    'checkpoint-pickle-list-key',
    'checkpoint-pickle-not-utf-8',
}


def test_a_bad_checkpoint_ends_in_one_error_that_says_what_to_do(results):
    found = of_kind(results[1], 'checkpoint')
    assert len(found) >= 60

    def good(row):
        named = 'in/good.ckpt' in row['message']
        return row['kind'] == 'InputError' and named and '주' in row['message']

    assert wrong(found, good) == {}
    unseen = {name for name, row in found.items() if row['message'][-1] == '\n'}
    assert unseen == ONLY_WHEN_READ


def test_no_bad_file_takes_memory_runs_code_or_writes_elsewhere(results):
    at, found = results
    assert wrong(found, lambda row: row['peak'] < MOST_MEGABYTES) == {}
    assert [path.name for path in at.iterdir()] == ['in']
    names = {path.name for path in (at / 'in').iterdir()}
    assert names == {'cifar-10-python.tar.gz', 'photos', 'good.ckpt'}


def test_the_chapter_tells_how_many_there_are(results):
    kinds = ('archive', 'cache', 'checkpoint')
    counts = [len(of_kind(results[1], kind)) for kind in kinds]
    text = '압축 파일 {}개, 캐시 {}개, 체크포인트 {}개'.format(*counts)
    assert text in (bad_files.ROOT / 'nbs/parts/archive.ipynb').read_text()


def test_the_payload_would_run(tmp_path):
    pickle.loads(bad_files.batch(extra=bad_files.touch(tmp_path)))
    assert (tmp_path / 'ran').exists()


def test_every_way_of_writing_a_good_archive_is_read(tmp_path):
    path = tmp_path / 'cifar-10-python.tar.gz'
    batches = [bad_files.batch(protocol) for protocol in (2, 3, 4, 5)]
    frozen = bad_files.PIXELS.copy()
    frozen.flags.writeable = False
    batches += [bad_files.batch(5, data=frozen), bad_files.python2_batch()]
    for data in batches:
        parts = dict.fromkeys(bad_files.NAMES, data) | {'batches.meta': b''}
        outside = [bad_files.member('../evil', b'x'), bad_files.member('a/pax', b'y')]
        blocks = [*outside, *bad_files.members(**parts).values()]
        path.write_bytes(bad_files.packed(blocks))
        assert dict(archive_members(path)) == parts
        images, labels = read_archive(path, 'train')
        expected = torch.from_numpy(bad_files.PIXELS).view(2, 3, 32, 32)
        assert torch.equal(images, expected.repeat(5, 1, 1, 1))
        assert labels.tolist() == [3, 9] * 5
        assert len(read_archive(path, 'test')[0]) == 2


def test_labels_and_pictures_keep_the_order_of_the_batches():
    pixels = bad_files.PIXELS[:1]
    batches = {
        name: pickle.dumps({'data': pixels + k, 'labels': [k]})
        for k, name in enumerate(BATCHES['train'])
    }
    shuffled = reversed(batches.items())
    images, labels = read_batches(shuffled, 'train', 'somewhere')
    assert labels.tolist() == [0, 1, 2, 3, 4]
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


MEASURE = """
import sys
from bad_files import peak
from cifar_lit.parts.archive import read_archive
before = peak()
images, labels = read_archive(sys.argv[1], 'train')
print(len(images), int(labels.sum()), int(images[-1].sum()), peak() - before)
"""


def test_a_full_archive_is_read_in_little_memory(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10_000, 3072), np.uint8)
    data = bad_files.python2_batch(pixels, [7] * 10_000)
    path = tmp_path / 'cifar-10-python.tar.gz'
    parts = dict.fromkeys(bad_files.NAMES, data) | {'batches.meta': b''}
    path.write_bytes(bad_files.packed(bad_files.members(**parts), level=0))
    command = [sys.executable, '-c', MEASURE, str(path)]
    here = Path(bad_files.__file__).parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    *counts, peak = done.stdout.split()
    assert counts == ['50000', '350000', str(pixels[-1].sum())]
    assert 153 < float(peak) < MOST_MEGABYTES  # 이미지만 154 MB


class Kept(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old'])
def test_what_training_saves_is_read(tmp_path, zipped):
    model = Kept()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model.net(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    cycle = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
    saved = {
        'state_dict': model.state_dict(),
        'optimizer_states': [optimizer.state_dict()],
        'lr_schedulers': [cycle.state_dict()],
        'weight': torch.nn.Parameter(torch.ones(3).half().t()),
        'view': torch.arange(10)[2:4],
        'flags': {1, 2, 3},
        'where': [torch.device('cpu'), torch.device('cuda', 1), torch.float16],
        'sizes': {'text': '가' * 300, (1, 2): 2**70, 'rate': 0.1, 'none': None},
    }
    path = tmp_path / 'kept.ckpt'
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    verify_checkpoint(path)
    assert str(read_checkpoint(path)) == str(saved)


def test_a_missing_checkpoint_is_named(tmp_path):
    for read in (read_checkpoint, verify_checkpoint):
        with pytest.raises(InputError, match='none.ckpt: 체크포인트를 열 수 없습니다'):
            read(tmp_path / 'none.ckpt')
