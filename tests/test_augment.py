"""증강과 순서는 시드와 에포크와 이미지로만 정해진다.

프로세스의 수가 바뀌어도, 이어서 학습해도 같다.
"""

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

from cifar_lit.data import CIFAR10DataModule
from cifar_lit.model import LitModel
from cifar_lit.parts.batches import EpochSampler
from cifar_lit.parts.files import InputError

ON = dict(flip='alternating', crop=4, cutout=8)


class Record(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch[0].clone())


def train(toy_folder, tmp_path, epochs, ckpt_path=None, **changes):
    "Trainer와 학습에 쓰인 배치들"
    pl.seed_everything(3, verbose=False)
    record = Record()
    dm = CIFAR10DataModule(16, source=str(toy_folder), **{**ON, **changes})
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[record],
        logger=False,
        accelerator='cpu',
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(LitModel((3, 32, 32), 3, 1e-3), dm, ckpt_path=ckpt_path)
    return trainer, record.seen


def same(tensors, others):
    return all(map(torch.equal, tensors, others))


def same_weights(trainer, other):
    models = trainer.lightning_module, other.lightning_module
    return same(*(model.parameters() for model in models))


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_change_nothing(toy_folder, tmp_path, workers):
    alone, seen = train(toy_folder, tmp_path, 2)
    several, again = train(toy_folder, tmp_path, 2, num_workers=workers)
    assert len(seen) == 8 and same(seen, again)
    assert same_weights(alone, several)
    assert not any(map(torch.equal, seen[:4], seen[4:]))  # 에포크마다 다르다.


@pytest.mark.parametrize('changes', [{}, dict(flip=None, crop=0, cutout=0)], ids=str)
def test_resume_is_bit_exact(toy_folder, tmp_path, changes):
    whole, seen = train(toy_folder, tmp_path, 3, **changes)
    half, _ = train(toy_folder, tmp_path, 1, **changes)
    path = tmp_path / 'half.ckpt'
    half.save_checkpoint(path)
    resumed, later = train(toy_folder, tmp_path, 3, ckpt_path=path, **changes)
    assert len(later) == 8 and same(seen[4:], later)
    assert same_weights(whole, resumed)


def test_another_seed_is_another_run(toy_folder, tmp_path):
    _, seen = train(toy_folder, tmp_path, 1)
    _, other = train(toy_folder, tmp_path, 1, seed=7)
    assert not any(map(torch.equal, seen, other))


def test_only_training_pictures_are_changed(toy_folder):
    plain = CIFAR10DataModule(16, source=str(toy_folder))
    augmented = CIFAR10DataModule(16, source=str(toy_folder), **ON)
    for dm in (plain, augmented):
        dm.prepare_data()
        dm.setup()
    for name in ('val_dataloader', 'test_dataloader', 'predict_dataloader'):
        batches = zip(getattr(plain, name)(), getattr(augmented, name)(), strict=True)
        assert all(torch.equal(images, others) for (images, _), (others, _) in batches)


@pytest.mark.parametrize(
    'name, value', [('crop', 32), ('crop', -1), ('cutout', 33), ('flip', 'both')]
)
def test_impossible_augmentation_is_named(name, value):
    with pytest.raises(InputError, match=f'{name}={value!r}'):
        CIFAR10DataModule(16, source='toy', **{name: value})


def test_ranks_see_every_picture_once():
    seen = []
    for rank in (0, 1):
        sampler = EpochSampler(10, seed=3)
        wrapped = DistributedSamplerWrapper(sampler, num_replicas=2, rank=rank)
        epochs = []
        for epoch in range(2):
            wrapped.set_epoch(epoch)
            epochs.append([index % 10 for index in wrapped])
        seen.append(epochs)
    for first, second in zip(*seen):
        assert sorted(first + second) == list(range(10))
    assert seen[0][0] != seen[0][1]
