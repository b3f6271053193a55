"""조각: 폴더와 같은 사진, 같은 순서로 이어 읽기, S3, 망가진 조각."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from given import ENV, toy_album
from PIL import Image
from test_several import equal_runs

from cifar_lit.data import CIFAR10DataModule
from cifar_lit.parts.batches import EpochSampler
from cifar_lit.parts.files import InputError
from cifar_lit.parts.shards import write_shards
from cifar_lit.parts.streaming import ShardPlace, ShardSource

BIN = Path(sys.executable).parent
QUIET = {**ENV, 'WANDB_MODE': 'disabled', 'OMP_NUM_THREADS': '1'}


@pytest.fixture(scope='module')
def album(tmp_path_factory):
    return toy_album(tmp_path_factory.mktemp('album') / 'photos')


@pytest.fixture(scope='module')
def shards(album):
    "학습 60장을 여덟 장씩, 테스트 30장"
    write_shards(album, album.parent / 'shards', items=8, workers=1)
    return album.parent / 'shards'


def module(source, **options):
    dm = CIFAR10DataModule(4, source=str(source), val_size=7, **options)
    dm.prepare_data()
    dm.setup()
    return dm


def pictures(dataset):
    "사진의 바이트와 라벨의 짝, 순서 없이"
    images, labels = dataset.images[:], dataset.labels[:]
    return sorted((image.numpy().tobytes(), int(k)) for image, k in zip(images, labels))


def batches(dm, epochs=1):
    loader = dm.train_dataloader()
    return [batch for _ in range(epochs) for batch in loader]


def same(ours, theirs):
    pairs = list(zip(ours, theirs, strict=True))
    return all(torch.equal(*pair) for two in pairs for pair in zip(*two, strict=True))


def test_shards_hold_the_pictures_of_the_folder(album, shards):
    ours, theirs = module(f'litdata:{shards}'), module(album)
    assert ours.classes == theirs.classes and ours.sizes == theirs.sizes
    for name in ('cifar_train', 'cifar_test'):
        both = [getattr(dm, name) for dm in (ours, theirs)]
        both = [getattr(dataset, 'dataset', dataset) for dataset in both]
        assert pictures(both[0]) == pictures(both[1])


def test_litdata_reads_them(shards):
    from litdata import StreamingDataset

    dm, read = module(f'litdata:{shards}'), StreamingDataset(str(shards / 'train'))
    images, labels = dm.source.load('train')
    assert len(read) == len(labels) == 60
    for i in (0, 7, 8, 59):
        assert np.array_equal(read[i]['image'], images[[i]][0])
        assert read[i]['label'] == labels[[i]]


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_change_nothing(shards, workers):
    options = {'flip': 'random', 'crop': 2}
    alone = batches(module(f'litdata:{shards}', **options), epochs=2)
    ours = batches(module(f'litdata:{shards}', num_workers=workers, **options), 2)
    assert len(alone) == 28 and same(ours, alone)


def test_each_epoch_sees_all_in_another_order(shards):
    dm = module(f'litdata:{shards}')
    rows = dm.cifar_train.indices
    orders = [np.concatenate([*rows.order(53, 0, epoch)]) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(53))
    assert (orders[0] != orders[1]).sum() > 40
    val = dm.cifar_val.indices
    assert sorted([*rows[:], *val[:]]) == list(range(60))
    other = module(f'litdata:{shards}', seed=43).cifar_val.indices
    assert set(other[:]) != set(val[:])


def test_ranks_read_their_own_shards(tmp_path):
    "두 프로세스는 저마다 조각의 반만 읽고, 합하면 한 프로세스의 순서이다."
    records = [{'name': str(k), 'items': 16} for k in range(16)]
    from cifar_lit.parts.streaming import ShardReader, ShardRows

    reader = ShardReader(ShardPlace(str(tmp_path), ''), records, 32)
    rows = ShardRows(reader, 0, 256)
    whole = list(EpochSampler(256, 0, order=rows.order))
    parts = [
        list(EpochSampler(256, 0, rank=k, world_size=2, order=rows.order))
        for k in (0, 1)
    ]
    assert [k for pair in zip(*parts) for k in pair] == whole
    first, second = (set(reader.shard_of(np.array(part))) for part in parts)
    assert len(first) == len(second) == 8 and not first & second


FIT = (
    'fit --data.batch_size 4 --data.val_size 7 --data.flip random '
    '--data.num_workers 1 --trainer.accelerator cpu --trainer.max_epochs 2 '
    '--trainer.log_every_n_steps 2 --last.steps 3'
).split()


def test_a_killed_run_goes_on_to_the_same_weights(shards, tmp_path):
    words = [BIN / 'cifar-lit', *FIT, '--data.source', f'litdata:{shards}']
    subprocess.run([*words, '--run_dir', 'whole'], cwd=tmp_path, env=QUIET, check=True)
    training = subprocess.Popen([*words, '--run_dir', 'part'], cwd=tmp_path, env=QUIET)
    while not (tmp_path / 'part/checkpoints/last.ckpt').exists():
        assert training.poll() is None
        time.sleep(0.02)
    training.kill()
    training.wait()
    again = [BIN / 'cifar-lit', 'resume', 'part']
    subprocess.run(again, cwd=tmp_path, env=QUIET, check=True)
    equal_runs(tmp_path / 'part', tmp_path / 'whole')


def test_killed_writing_goes_on(album, shards, tmp_path):
    words = [BIN / 'cifar-lit', 'shard', album, 'out', '--items', '8']
    writing = subprocess.Popen(words, cwd=tmp_path, env=QUIET, start_new_session=True)
    progress = tmp_path / 'out/progress.jsonl'
    while not progress.exists() or len(progress.read_text().splitlines()) < 3:
        assert writing.poll() is None
        time.sleep(0.01)
    os.killpg(writing.pid, signal.SIGKILL)
    writing.wait()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.bin')}
    assert not (tmp_path / 'out/shards.json').exists()
    with pytest.raises(InputError, match='다 쓴 조각 폴더가 아닙니다'):
        ShardSource(str(tmp_path / 'out'))
    subprocess.run(words, cwd=tmp_path, env=QUIET, check=True)
    recorded = {path: path.stat().st_mtime_ns for path in kept}
    assert sum(recorded[path] == kept[path] for path in kept) >= 2
    for path in [*shards.rglob('*.bin'), shards / 'shards.json']:
        ours = tmp_path / 'out' / path.relative_to(shards)
        assert ours.read_bytes() == path.read_bytes()


def spoil(folder, how):
    path = folder / 'train/chunk-0-1.bin'
    content = bytearray(path.read_bytes())
    if how == 'missing':
        path.unlink()
    elif how == 'short':
        path.write_bytes(content[:-1])
    else:
        content[-100] ^= 1
        path.write_bytes(content)
    return path


@pytest.mark.parametrize('how', ['missing', 'short', 'altered'])
def test_a_spoiled_shard_is_named(shards, how, tmp_path, cli):
    shutil.copytree(shards, tmp_path / 'shards')
    path = spoil(tmp_path / 'shards', how)
    options = ['--data.source', 'litdata:shards', '--data.batch_size', '4']
    done = cli('fit', *options, '--trainer.max_epochs', '1', check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert f'{path.parent.name}/{path.name}' in done.stderr


def test_other_bad_sources(shards, tmp_path):
    with pytest.raises(InputError, match='--data.image_size 32'):
        module(f'litdata:{shards}', image_size=48)
    with pytest.raises(InputError, match='shards.json'):
        module(f'litdata:{tmp_path}')
    (tmp_path / 'shards.json').write_text('{"shards": 3}')
    with pytest.raises(InputError, match='shards.json'):
        module(f'litdata:{tmp_path}')


@pytest.fixture(scope='module')
def s3(shards):
    "조각을 올려 둔 S3 서버(moto)"
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address='127.0.0.1', port=0)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        'AWS_ENDPOINT_URL': f'http://{host}:{port}',
        'AWS_ACCESS_KEY_ID': 'test',
        'AWS_SECRET_ACCESS_KEY': 'test',
        'AWS_DEFAULT_REGION': 'us-east-1',
    }
    before = dict(os.environ)
    os.environ.update(variables)
    import boto3

    client = boto3.client('s3')
    client.create_bucket(Bucket='pictures')
    for path in shards.rglob('*'):
        if path.is_file():
            key = f'toy/{path.relative_to(shards)}'
            client.upload_file(str(path), 'pictures', key)
    yield variables
    server.stop()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize('workers', [0, 2])
def test_s3_gives_the_same_batches(shards, s3, workers, tmp_path):
    options = {'num_workers': workers, 'data_dir': str(tmp_path)}
    far = module('litdata:s3://pictures/toy', **options)
    assert same(batches(far, 2), batches(module(f'litdata:{shards}'), 2))
    assert len(list(tmp_path.rglob('chunk-0-*.bin'))) == 8


def test_shards_written_anew_are_read_anew(album, shards, s3, tmp_path):
    "같은 주소에 다시 쓴 조각이 있으면 받아 둔 것을 쓰지 않는다."
    import boto3

    client = boto3.client('s3')

    def upload(folder):
        for path in folder.rglob('*.*'):
            key = f'again/{path.relative_to(folder)}'
            client.upload_file(str(path), 'pictures', key)

    def read():
        dm = module('litdata:s3://pictures/again', data_dir=str(tmp_path / 'cache'))
        return pictures(dm.cifar_train.dataset)

    upload(shards)
    before = read()
    shutil.copytree(album, tmp_path / 'photos')
    [picture, *_] = sorted((tmp_path / 'photos/train').rglob('*.png'))
    Image.new('RGB', (48, 40), 'white').save(picture)
    write_shards(tmp_path / 'photos', tmp_path / 'shards', items=8, workers=1)
    upload(tmp_path / 'shards')
    assert len(set(read()) - set(before)) == 1


def test_a_spoiled_shard_is_named_by_a_worker(shards, tmp_path, cli):
    shutil.copytree(shards, tmp_path / 'shards')
    spoil(tmp_path / 'shards', 'altered')
    options = ['--data.source', 'litdata:shards', '--data.batch_size', '4']
    options += ['--data.num_workers', '1', '--trainer.max_epochs', '1']
    done = cli('fit', *options, check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'train/chunk-0-1.bin' in done.stderr


def test_the_cache_keeps_its_size(shards, s3, tmp_path):
    size = (shards / 'train/chunk-0-0.bin').stat().st_size
    place = ShardPlace('s3://pictures/toy', str(tmp_path), cache_bytes=3.5 * size)
    for k in (0, 1, 2, 0, 3):
        time.sleep(0.02)
        place.path(f'train/chunk-0-{k}.bin')
    kept = {path.name for path in tmp_path.rglob('*.bin')}
    assert kept == {f'chunk-0-{k}.bin' for k in (0, 2, 3)}


@pytest.mark.parametrize('bucket', ['pictures/nothing', 'nobody/toy'])
def test_a_wrong_address_is_named(s3, bucket, tmp_path):
    with pytest.raises(InputError, match=f's3://{bucket}/shards.json'):
        module(f'litdata:s3://{bucket}', data_dir=str(tmp_path))


def test_a_closed_server_is_named(s3, tmp_path, cli):
    closed = {**s3, 'AWS_ENDPOINT_URL': 'http://127.0.0.1:9', 'AWS_MAX_ATTEMPTS': '1'}
    options = ['--data.source', 'litdata:s3://pictures/toy']
    done = cli('fit', *options, check=False, **closed)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 's3://pictures/toy/shards.json' in done.stderr
