"""이어서 하기의 모서리: 장치, 시간, 스텝, 잠금, 덮어쓰면 안 되는 것."""

import os
import shutil
import sys

import pytest
import torch
from given import read_rows
from lightning.pytorch.callbacks import Timer
from torchmetrics.classification import MulticlassAccuracy

from cifar_lit.model import LitModel
from cifar_lit.parts.files import InputError
from cifar_lit.parts.restart import open_run
from cifar_lit.parts.resume import StopSignals, put_metrics
from cifar_lit.parts.runs import lock_run
from cifar_lit.parts.saves import newest_checkpoint

TOY = '--data.source toy --trainer.enable_model_summary false --run_dir run'.split()


def test_sums_go_to_the_device_of_the_metric():
    metric = MulticlassAccuracy(3, average='micro')
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 2]))
    state = {name: value.clone() for name, value in metric.metric_state.items()}
    sums = {'acc': {'attribute': 'acc', 'state': state, 'updates': 1}}
    model = torch.nn.ModuleDict({'acc': MulticlassAccuracy(3, average='micro')})
    put_metrics([sums], model.to('meta'))  # GPU를 대신하는 장치
    assert {value.device.type for value in model['acc'].metric_state.values()} == {
        'meta'
    }


def test_steps_that_end_before_a_validation_keep_the_weights(here, tmp_path, capsys):
    assert here('tutorial', *TOY, '--trainer.max_steps', 5) is None
    assert '(검증하지 않아 마지막 것)' in capsys.readouterr().out
    saved = torch.load(tmp_path / 'run/checkpoints/last.ckpt', weights_only=True)
    assert saved['global_step'] == 5
    assert here('resume', 'run', '--trainer.max_steps', 7) is None


def test_weights_alone_are_not_resumed(here, tmp_path):
    options = '--trainer.max_epochs 1 --trainer.limit_train_batches 4'.split()
    alone = '--checkpoint.save_weights_only true'.split()
    assert here('fit', *TOY, *options, *alone) is None
    last = tmp_path / 'run/checkpoints/last.ckpt'
    assert newest_checkpoint(tmp_path / 'run')[0] == str(last)
    last.rename(tmp_path / 'last.ckpt')
    assert '가중치만 들어 있어' in here('resume', 'run')
    assert not last.exists()


def test_several_best_checkpoints_need_their_own_names(here, tmp_path):
    options = '--checkpoint.save_top_k 3 --trainer.limit_train_batches 4'.split()
    message = here('fit', *TOY, *options)
    assert 'checkpoint.save_top_k=3' in message and not (tmp_path / 'run').exists()
    named = ['--checkpoint.filename', 'best-{epoch}-{step}']
    assert here('fit', *TOY, *options, *named) is None
    names = [path.name for path in (tmp_path / 'run/checkpoints').glob('best-*.ckpt')]
    assert len(names) == 2


def test_an_exception_does_not_replace_the_best(here, tmp_path, monkeypatch):
    step = LitModel.training_step

    def failing(self, batch, batch_idx):
        if self.global_step == 6:
            raise RuntimeError('stopped')
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LitModel, 'training_step', failing)
    options = '--trainer.limit_train_batches 4 --checkpoint.save_on_exception true'
    with pytest.raises(RuntimeError, match='stopped'):
        here('fit', *TOY, *options.split())
    place = tmp_path / 'run/checkpoints'
    steps = {
        name: torch.load(place / f'{name}.ckpt', weights_only=True)['global_step']
        for name in ('best', 'exception')
    }
    assert steps == {'best': 4, 'exception': 6}
    assert newest_checkpoint(tmp_path / 'run')[0] == str(place / 'best.ckpt')


def test_a_signal_is_kept_though_nobody_reads_the_words(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, '__stderr__', os.fdopen(writer, 'w'))
    signals = StopSignals()
    signals._receive(2, None)
    assert signals.number == 2


def test_more_time_trains_on_from_the_next_epoch(here, tmp_path, monkeypatch):
    step, seen = LitModel.training_step, []

    def counted(self, batch, batch_idx):
        seen.append(batch_idx)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LitModel, 'training_step', counted)
    # 한 스텝을 1초로 센다.
    monkeypatch.setattr(Timer, 'time_elapsed', lambda self, stage='train': len(seen))
    options = '--trainer.limit_train_batches 4 --trainer.max_epochs 9'.split()
    assert here('fit', *TOY, *options, '--trainer.max_time', '00:00:00:06') is None
    assert seen == [0, 1, 2, 3, 0, 1]
    assert here('resume', 'run', '--trainer.max_time', '00:00:00:11') is None
    assert seen[6:] == [0, 1, 2, 3, 0]


def test_validation_by_steps_comes_at_the_same_steps_when_resumed(
    here, tmp_path, monkeypatch
):
    options = (
        '--trainer.check_val_every_n_epoch null --trainer.val_check_interval 4 '
        '--trainer.limit_val_batches 1 --trainer.max_epochs -1 --trainer.max_steps 13 '
        '--last.steps 1'
    ).split()
    assert here('fit', *TOY, *options) is None
    shutil.move(tmp_path / 'run', tmp_path / 'whole')
    step, stopped = LitModel.training_step, []

    def failing(self, batch, batch_idx):
        if self.global_step == 6 and not stopped:
            stopped.append(True)
            raise RuntimeError('stopped')
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LitModel, 'training_step', failing)
    with pytest.raises(RuntimeError, match='stopped'):
        here('fit', *TOY, *options)
    assert here('resume', 'run') is None
    whole, run = (
        [row for row in read_rows(tmp_path / name / 'metrics.csv') if row['val_loss']]
        for name in ('whole', 'run')
    )
    assert len(whole) == 3 and run == whole


def test_a_run_that_is_being_trained_is_not_touched(here, tmp_path):
    assert here('fit', *TOY, '--trainer.max_steps', 3) is None
    writing = tmp_path / 'run/checkpoints/last.ckpt.123.tmp'
    writing.touch()
    lock = lock_run(tmp_path / 'run')
    with pytest.raises(InputError, match='다른 프로세스가 학습하고 있습니다'):
        open_run('run')
    assert writing.exists()
    lock.release()
    assert open_run('run').step == 3 and not writing.exists()
