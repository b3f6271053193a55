"""조리법을 명령줄에서: 학습하고, 다시 읽고, 내보내기."""

import shutil

import pytest
import torch

from cifar_lit.cli import main
from cifar_lit.data import InputError, toy_pictures
from cifar_lit.share import export_onnx, export_safetensors, load_model

QUICK = (
    '--recipe',
    'quick',
    '--data.source',
    'toy',
    '--trainer.enable_model_summary',
    'false',
)


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        try:
            return main([str(arg) for arg in args])
        except SystemExit as e:
            return e.code

    return call


def test_quick_recipe_is_trained_read_and_handed_on(call, tmp_path, capsys):
    assert call('tutorial', *QUICK, '--run_dir', 'run') is None
    accuracy = float(capsys.readouterr().out.split('정확도: ')[1].split()[0])
    assert accuracy > 70
    shutil.copy('run/checkpoints/best.ckpt', 'alone.ckpt')  # 옆에 config.yaml이 없어도
    pictures, labels = toy_pictures(500, seed=8)
    answer = load_model('alone.ckpt')(pictures)
    assert (answer.argmax(1) == labels).float().mean() > 0.6
    for write, name in ((export_onnx, 'm.onnx'), (export_safetensors, 'm.safetensors')):
        torch.testing.assert_close(
            load_model(write('alone.ckpt', name))(pictures), answer, atol=1e-4, rtol=0
        )
    for recipe in ((), ('--recipe', 'fast')):  # 적지 않아도 체크포인트를 보고 안다.
        assert (
            call('test', '--data.source', 'toy', *recipe, '--ckpt_path', 'alone.ckpt')
            is None
        )
        assert f'{accuracy / 100:.2f}'[:3] in capsys.readouterr().out
    assert (
        call(
            'predict',
            '--data.source',
            'toy',
            '--ckpt_path',
            'alone.ckpt',
            '--run_dir',
            'predicted',
        )
        is None
        and len(open('predicted/predictions.csv').readlines()) == 2001
    )
    assert call('report', 'run', '--no-wandb') is None
    assert (
        call(
            'tutorial',
            *QUICK,
            '--run_dir',
            'more',
            '--ckpt_path',
            'run/checkpoints/last.ckpt',
            '--trainer.max_epochs',
            2,
        )
        is None
    )


def test_weight_averaging_is_saved_as_best(call):
    assert (
        call(
            'fit',
            *QUICK,
            '--run_dir',
            'run',
            '--trainer.callbacks+=EMAWeightAveraging',
            '--trainer.callbacks.decay',
            0.8,
        )
        is None
    )
    saved = torch.load('run/checkpoints/best.ckpt', weights_only=True)
    assert 'current_model_state' in saved and not torch.equal(
        saved['state_dict']['net.head.weight'],
        saved['current_model_state']['net.head.weight'],
    )


def test_wrong_recipe_and_missing_pictures(call, monkeypatch):
    assert 'quick, fast' in call('tutorial', '--recipe', 'slow')
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader

    from cifar_lit.speed import FastModel, FastNet

    trainer = pl.Trainer(
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator='cpu',
    )
    with pytest.raises(InputError, match='init_whitening'):
        trainer.fit(
            FastModel((3, 32, 32), 10),
            DataLoader([(torch.zeros(3, 32, 32), 0)] * 4, batch_size=2),
        )
    with pytest.raises(InputError, match='size=8'):
        FastNet((3, 32, 32), 10, size=8)
