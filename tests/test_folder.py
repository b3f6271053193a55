"""사진 폴더와 DataLoader 가운데 노트북에 담기에는 드문 경우.

끊어진 링크, 망가진 캐시, 빈 클래스, test/가 없는 폴더, 물결표, 보통의 DataLoader.
"""

import os
import shutil

import pytest
import torch
from PIL import Image, features
from torch.utils.data import DataLoader, Subset

from cifar_lit.data import CIFAR10DataModule
from cifar_lit.parts import download
from cifar_lit.parts.batches import make_loader
from cifar_lit.parts.files import InputError
from cifar_lit.parts.shards import write_shards


def module(folder, **changes):
    dm = CIFAR10DataModule(4, source=str(folder), **changes)
    dm.prepare_data()
    dm.setup()
    return dm


def held_in(images):
    "이미지마다의 바이트. 같은 이미지가 있는지 볼 때 쓴다."
    return {image.numpy().tobytes() for image in images}


def save_broken_avif(picture, target):
    "앞부분은 멀쩡하고 픽셀이 망가진 AVIF"
    picture.convert('RGB').save(target)
    data = target.read_bytes()
    head = data.index(b'mdat') + 4
    target.write_bytes(data[:head] + b'\xff' * (len(data) - head))


def test_broken_files_are_named_and_skipped(toy_folder):
    birds = toy_folder / 'train/bird'
    first, second, *_ = sorted(birds.iterdir())
    first.unlink()
    first.symlink_to('nowhere.png')
    if features.check('avif'):
        save_broken_avif(Image.open(second), birds / 'bad.avif')
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
    assert torch.equal(module(toy_folder).cifar_test.images, images)
    assert cache.stat().st_size > 10_000


def test_no_test_pictures_or_one_class(toy_folder):
    for path in (toy_folder / 'test').glob('*/*'):
        path.unlink()
    with pytest.raises(InputError, match='test/에 읽을 수 있는 사진이 없습니다'):
        module(toy_folder)
    for name in ('automobile', 'bird'):
        shutil.rmtree(toy_folder / 'train' / name)
        shutil.rmtree(toy_folder / 'test' / name)
    with pytest.raises(InputError, match='1개 있습니다'):
        module(toy_folder)


def test_without_test_a_tenth_of_each_class_is_held_out(toy_folder):
    shutil.rmtree(toy_folder / 'test')
    dm = module(toy_folder)
    assert dm.sizes['test'] == 6 and sum(dm.sizes.values()) == 60
    assert dm.cifar_test.labels.bincount().tolist() == [2, 2, 2]
    train, test = dm.cifar_train.dataset.images, dm.cifar_test.images
    assert len(held_in(train) | held_in(test)) == 60
    assert not held_in(train) & held_in(test)
    again = module(toy_folder)
    assert torch.equal(again.cifar_test.images, test)
    assert torch.equal(again.cifar_train.dataset.images, train)


def test_a_folder_of_classes_is_the_same_as_train(toy_folder):
    shutil.rmtree(toy_folder / 'test')
    flat = shutil.copytree(toy_folder / 'train', toy_folder.with_name('flat'))
    under_train, alone = module(toy_folder), module(flat)
    assert alone.classes == under_train.classes and alone.sizes == under_train.sizes
    pairs = (
        (alone.cifar_train.dataset, under_train.cifar_train.dataset),
        (alone.cifar_test, under_train.cifar_test),
    )
    for ours, theirs in pairs:
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)


def test_test_without_train_is_named(toy_folder):
    shutil.rmtree(toy_folder / 'train')
    with pytest.raises(InputError, match='train/ 폴더가 없습니다'):
        module(toy_folder)


def test_large_pictures_become_small(tmp_path):
    for name, color in (('red', 'red'), ('green', 'lime')):
        (tmp_path / name).mkdir()
        for i, size in enumerate([(1000, 1000), (1000, 700), (700, 1000), (1000, 40)]):
            Image.new('RGB', size, color).save(tmp_path / name / f'{i}.png')
    dm = module(tmp_path)
    x, y = dm.cifar_train[0]
    assert x.shape == (3, 32, 32)
    images = torch.cat([dm.cifar_train.dataset.images, dm.cifar_test.images])
    labels = torch.cat([dm.cifar_train.dataset.labels, dm.cifar_test.labels])
    assert images.shape == (8, 3, 32, 32) and dm.classes == ['green', 'red']
    for image, label in zip(images, labels):
        color = [255, 0, 0] if dm.classes[label] == 'red' else [0, 255, 0]
        assert (image == torch.tensor(color)[:, None, None]).all()


def test_home_is_expanded(toy_folder, monkeypatch):
    home = toy_folder.parent
    for name in ('HOME', 'USERPROFILE'):
        monkeypatch.setenv(name, str(home))
    dm = module('~/photos', data_dir='~/data')
    assert dm.data_dir == str(home / 'data')


def black(image):
    return torch.zeros(3, 32, 32)


@pytest.mark.parametrize('changes', [{}, {'transform': black}], ids=['batched', 'own'])
@pytest.mark.parametrize('workers', [0, 2])
def test_an_ordinary_dataloader_reads_the_parts(toy_folder, changes, workers):
    dm = module(toy_folder, num_workers=workers, **changes)
    for dataset in (dm.cifar_train, dm.cifar_test, Subset(dm.cifar_test, range(5))):
        loader = DataLoader(dataset, batch_size=4, num_workers=workers)
        images, labels = next(iter(loader))
        assert images.shape == (4, 3, 32, 32)
        assert labels.shape == (4,) and labels.dtype == torch.int64
    images, labels = next(iter(dm.val_dataloader()))
    assert images.shape == (4, 3, 32, 32) and labels.shape == (4,)


def test_hidden_folders_are_not_pictures(toy_folder):
    for name in ('.cifar_lit/bird-32px.npz', '.ipynb_checkpoints/0-checkpoint.png'):
        file = toy_folder / 'train/bird' / name
        file.parent.mkdir()
        file.touch()
    assert len(module(toy_folder).cifar_train) == 54


def test_going_over_a_dataset_ends(toy_folder):
    dm = module(toy_folder)
    assert len(list(dm.cifar_train)) == 54 and len(list(dm.cifar_val)) == 6
    image, label = next(iter(dm.cifar_val))
    assert torch.equal(image, dm.cifar_val[0][0]) and label == dm.cifar_val[0][1]


def test_a_whole_dataset_is_shuffled_epoch_after_epoch(toy_folder):
    loader = make_loader(module(toy_folder).cifar_test, 10, shuffle=True)
    first, second = (torch.cat([x for x, _ in loader]) for _ in range(2))
    assert not torch.equal(first, second)
    assert held_in(first) == held_in(second) and len(first) == 30


def test_shards_of_what_is_not_an_album(toy_folder, tmp_path):
    for folder in (tmp_path / 'nope', toy_folder / 'train/bird/0.png'):
        with pytest.raises(InputError, match=f'{folder.name}: 사진 폴더가 아닙니다'):
            write_shards(folder, tmp_path / 'out')


def test_shards_with_an_empty_test_folder_are_refused(toy_folder, tmp_path):
    shutil.rmtree(toy_folder / 'test')
    (toy_folder / 'test').mkdir()
    with pytest.raises(InputError, match='photos/test/에 사진이 없습니다'):
        write_shards(toy_folder, tmp_path / 'out', workers=1)
    assert not list(tmp_path.glob('out/*/*.bin'))


def test_shards_of_names_that_are_not_utf8(toy_folder, tmp_path):
    name = os.fsdecode('새'.encode('cp949'))
    for split in ('train', 'test'):
        (toy_folder / split / 'bird').rename(toy_folder / split / name)
    assert name in write_shards(toy_folder, tmp_path / 'out', workers=1)['classes']


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refused(root):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(download, 'cifar10_faults', refused)
    with pytest.raises(InputError, match='Permission denied'):
        download.download_cifar10(tmp_path)
