"""레시피를 명령줄에서: 학습하고, 다시 읽고, 내보내기."""

import shutil

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cifar_lit.cli import main
from cifar_lit.parts.files import InputError
from cifar_lit.parts.nets import FastNet
from cifar_lit.parts.toy import toy_pictures
from cifar_lit.share import export_onnx, export_safetensors, load_model
from cifar_lit.speed import FastModel

QUICK = '--recipe quick --data.source toy --trainer.enable_model_summary false'.split()


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        try:
            return main([str(argument) for argument in arguments])
        except SystemExit as error:
            return error.code

    return call


def printed_accuracy(capsys):
    "요약에 적힌 정확도, %"
    return float(capsys.readouterr().out.split('정확도: ')[1].split()[0])


def test_quick_recipe_is_trained_read_and_handed_on(call, tmp_path, capsys):
    assert call('tutorial', *QUICK, '--run_dir', 'run') is None
    accuracy = printed_accuracy(capsys)
    assert accuracy > 70
    shutil.copy('run/checkpoints/best.ckpt', 'alone.ckpt')  # 옆에 config.yaml이 없어도
    pictures, labels = toy_pictures(500, seed=8)
    answer = load_model('alone.ckpt')(pictures)
    assert (answer.argmax(1) == labels.numpy()).mean() > 0.6
    for write, name in ((export_onnx, 'm.onnx'), (export_safetensors, 'm.safetensors')):
        again = load_model(write('alone.ckpt', name))(pictures)
        np.testing.assert_allclose(again, answer, atol=1e-4)
    alone = '--data.source toy --ckpt_path alone.ckpt'.split()
    for recipe in ((), ('--recipe', 'fast')):  # 적지 않아도 체크포인트를 보고 안다.
        assert call('test', *alone, *recipe) is None
        assert f'{accuracy / 100:.2f}'[:3] in capsys.readouterr().out
    assert call('predict', *alone, '--run_dir', 'predicted') is None
    with open('predicted/predictions.csv', encoding='utf-8') as file:
        assert len(file.readlines()) == 2001
    assert call('report', 'run', '--no-wandb') is None
    resumed = '--ckpt_path run/checkpoints/last.ckpt --trainer.max_epochs 2'.split()
    assert call('tutorial', *QUICK, *resumed, '--run_dir', 'more') is None


def test_weight_averaging_is_saved_as_best(call):
    averaging = (
        '--trainer.callbacks+=EMAWeightAveraging --trainer.callbacks.decay 0.8'
    ).split()
    assert call('fit', *QUICK, '--run_dir', 'run', *averaging) is None
    checkpoint = torch.load('run/checkpoints/best.ckpt', weights_only=True)
    averaged = checkpoint['state_dict']['net.head.weight']
    current = checkpoint['current_model_state']['net.head.weight']
    assert not torch.equal(averaged, current)


def test_wrong_recipe_and_missing_pictures(call):
    assert 'quick, fast' in call('tutorial', '--recipe', 'slow')
    trainer = pl.Trainer(
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator='cpu',
    )
    loader = DataLoader([(torch.zeros(3, 32, 32), 0)] * 4, batch_size=2)
    with pytest.raises(InputError, match='init_whitening'):
        trainer.fit(FastModel((3, 32, 32), 10), loader)
    with pytest.raises(InputError, match='size=8'):
        FastNet((3, 32, 32), 10, size=8)
