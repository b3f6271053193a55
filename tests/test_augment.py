"""증강과 순서는 씨앗과 에포크와 이미지로만 정해진다: 프로세스의 수, 이어서 학습하기."""

import lightning.pytorch as pl
import pytest
import torch

from cifar_lit.data import CIFAR10DataModule, InputError
from cifar_lit.model import LitModel

ON = dict(flip='alternating', crop=4, cutout=8)


class Record(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch[0].clone())


def train(toy_folder, tmp_path, epochs, ckpt_path=None, **changes):
    pl.seed_everything(3, verbose=False)
    record, dm = (
        Record(),
        CIFAR10DataModule(16, source=str(toy_folder), **ON, **changes),
    )
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


@pytest.mark.parametrize('workers', [1, 2])
def test_workers_change_nothing(toy_folder, tmp_path, workers):
    alone, seen = train(toy_folder, tmp_path, 2)
    several, same = train(toy_folder, tmp_path, 2, num_workers=workers)
    assert len(seen) == 8 and all(map(torch.equal, seen, same))
    assert all(
        map(
            torch.equal,
            alone.lightning_module.parameters(),
            several.lightning_module.parameters(),
        )
    )
    assert not any(map(torch.equal, seen[:4], seen[4:]))  # 에포크마다 다르다.


def test_resume_is_bit_exact(toy_folder, tmp_path):
    whole, seen = train(toy_folder, tmp_path, 3)
    half, _ = train(toy_folder, tmp_path, 1)
    half.save_checkpoint(tmp_path / 'half.ckpt')
    rest, later = train(toy_folder, tmp_path, 3, ckpt_path=tmp_path / 'half.ckpt')
    assert len(later) == 8 and all(map(torch.equal, seen[4:], later))
    assert all(
        map(
            torch.equal,
            whole.lightning_module.parameters(),
            rest.lightning_module.parameters(),
        )
    )


def test_another_seed_is_another_run(toy_folder, tmp_path):
    _, seen = train(toy_folder, tmp_path, 1)
    _, other = train(toy_folder, tmp_path, 1, seed=7)
    assert not any(map(torch.equal, seen, other))


def test_only_training_pictures_are_changed(toy_folder):
    plain, augmented = (
        CIFAR10DataModule(16, source=str(toy_folder), **changes) for changes in ({}, ON)
    )
    for dm in (plain, augmented):
        dm.prepare_data(), dm.setup()
    for name in ('val_dataloader', 'test_dataloader', 'predict_dataloader'):
        assert all(
            torch.equal(a, b)
            for (a, _), (b, _) in zip(
                getattr(plain, name)(), getattr(augmented, name)(), strict=True
            )
        )


@pytest.mark.parametrize(
    'changes',
    [dict(crop=32), dict(crop=-1), dict(cutout=33), dict(flip='both')],
    ids=str,
)
def test_impossible_augmentation_is_named(changes):
    [(name, value)] = changes.items()
    with pytest.raises(InputError, match=f'{name}={value!r}'):
        CIFAR10DataModule(16, source='toy', **changes)
