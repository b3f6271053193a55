"레시피 `record`의 모델: 이어서 한 학습이 멈추지 않은 것과 같은가."

import lightning.pytorch as pl
import pytest
import torch

from cifar_lit.data import CIFAR10DataModule
from cifar_lit.parts.record import RecordModel
from cifar_lit.parts.resume import LastCheckpoint, Resumable
from cifar_lit.speed import FastModel


class Stop(pl.Callback):
    "`step`번째 스텝을 시작하기 전에 그만둔다."

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError('그만둔다')


SMALL = dict(widths=(8, 8), size=(8, 16), whitening_epochs=1)


def fit(place, ckpt_path=None, stop=(), model_class=RecordModel):
    pl.seed_everything(0, verbose=False)
    dm = CIFAR10DataModule(500, source='toy', flip='alternating', crop=2)
    more = {'weight_decay': 0.0004} if model_class is RecordModel else {}
    model = model_class((3, 32, 32), 10, **SMALL, **more)
    last = LastCheckpoint(steps=1)
    trainer = pl.Trainer(
        accelerator='cpu',
        default_root_dir=place,
        callbacks=[Resumable(), last, *stop],
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=1,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, dm, ckpt_path=ckpt_path)
    return trainer, model


@pytest.mark.parametrize(
    ('model_class', 'steps'),
    [(RecordModel, 7), (RecordModel, 18), (RecordModel, 23), (FastModel, 23)],
)
def test_resumed_in_an_epoch_equals_never_stopped(model_class, steps, tmp_path):
    kind = {'model_class': model_class}
    whole, expected = fit(tmp_path / 'whole', **kind)
    with pytest.raises(RuntimeError, match='그만둔다'):
        fit(tmp_path / 'cut', stop=[Stop(steps)], **kind)
    [last] = (tmp_path / 'cut').rglob('last.ckpt')
    again, found = fit(tmp_path / 'again', last, **kind)
    assert whole.global_step == again.global_step == 36
    for name, weight in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight), name
    for name in ('train_loss', 'train_acc'):
        same = whole.callback_metrics[name] == again.callback_metrics[name]
        assert same, (name, whole.callback_metrics, again.callback_metrics)
    assert not found.net.whiten.bias.requires_grad
