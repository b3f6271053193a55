"""사진 폴더와 DataLoader 가운데 노트북에 담기에는 드문 경우: 끊어진 링크, 망가진 캐시, 빈 클래스, 물결표, 보통의 DataLoader."""

import shutil

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from cifar_lit.data import CIFAR10DataModule, InputError


def module(folder, **changes):
    dm = CIFAR10DataModule(4, source=str(folder), **changes)
    dm.prepare_data(), dm.setup()
    return dm


def test_broken_files_are_named_and_skipped(toy_folder):
    first, second, *_ = sorted((toy_folder / 'train/bird').iterdir())
    first.unlink(), first.symlink_to('nowhere.png')
    from PIL import features

    if features.check('avif'):
        from PIL import Image

        target = toy_folder / 'train/bird/bad.avif'
        Image.open(second).convert('RGB').save(target)
        data = target.read_bytes()
        head = data.index(b'mdat') + 4
        target.write_bytes(data[:head] + b'\xff' * (len(data) - head))
    with pytest.raises(InputError, match=first.name):
        module(toy_folder)
    with pytest.warns(UserWarning, match='빼고 읽습니다'):
        dm = module(toy_folder, on_bad_image='skip')
    assert dm.sizes['train'] + dm.sizes['val'] == 59


@pytest.mark.parametrize(
    'damage', [b'', b'PK\x03\x04' + bytes(60)], ids=['empty', 'header']
)
def test_a_damaged_cache_is_built_again(toy_folder, damage):
    images = module(toy_folder).cifar_test.images
    [cache] = (toy_folder / '.cifar_lit').iterdir()
    cache.write_bytes(damage)
    assert (
        torch.equal(module(toy_folder).cifar_test.images, images)
        and cache.stat().st_size > 10_000
    )


def test_no_test_pictures_or_one_class(toy_folder):
    for path in (toy_folder / 'test').glob('*/*'):
        path.unlink()
    with pytest.raises(InputError, match='test/에 읽을 수 있는 사진이 없습니다'):
        module(toy_folder)
    for name in ('automobile', 'bird'):
        (
            shutil.rmtree(toy_folder / 'train' / name),
            shutil.rmtree(toy_folder / 'test' / name),
        )
    with pytest.raises(InputError, match='1개 있습니다'):
        module(toy_folder)


def test_home_is_expanded(toy_folder, monkeypatch):
    (
        monkeypatch.setenv('HOME', str(toy_folder.parent)),
        monkeypatch.setenv('USERPROFILE', str(toy_folder.parent)),
    )
    assert module('~/photos', data_dir='~/data').data_dir == str(
        toy_folder.parent / 'data'
    )


@pytest.mark.parametrize(
    'transform', [None, lambda image: torch.zeros(3, 32, 32)], ids=['batched', 'own']
)
@pytest.mark.parametrize('workers', [0, 2])
def test_an_ordinary_dataloader_reads_the_parts(toy_folder, transform, workers):
    dm = module(toy_folder, **({'transform': transform} if transform else {}))
    for dataset in (dm.cifar_train, dm.cifar_test, Subset(dm.cifar_test, range(5))):
        images, labels = next(
            iter(DataLoader(dataset, batch_size=4, num_workers=workers))
        )
        assert (
            images.shape == (4, 3, 32, 32)
            and labels.shape == (4,)
            and labels.dtype == torch.int64
        )
    dm.hparams.num_workers = workers
    images, labels = next(iter(dm.val_dataloader()))
    assert images.shape == (4, 3, 32, 32) and labels.shape == (4,)
