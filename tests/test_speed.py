"""레시피를 명령줄에서: 학습하고, 다시 읽고, 내보내기."""

import copy
import shutil
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

from cifar_lit import speed
from cifar_lit.cli import main
from cifar_lit.data import CIFAR10DataModule
from cifar_lit.parts.files import InputError
from cifar_lit.parts.nets import FastNet
from cifar_lit.parts.recipes import read_recipe, recipe_path
from cifar_lit.parts.record import RecordModel
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


def test_weight_averaging_is_saved_with_the_current_weights(call):
    averaging = (
        '--trainer.callbacks+=EMAWeightAveraging --trainer.callbacks.decay 0.8'
    ).split()
    assert call('fit', *QUICK, '--run_dir', 'run', *averaging) is None
    for name in ('best.ckpt', 'last.ckpt'):
        checkpoint = torch.load(f'run/checkpoints/{name}', weights_only=True)
        averaged = checkpoint['state_dict']['net.head.weight']
        current = checkpoint['current_model_state']['net.head.weight']
        assert not torch.equal(averaged, current)


def printed_config(call, capsys, *arguments):
    "`--print_config`가 쓴 설정"
    assert call('fit', *arguments, '--print_config') == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_a_recipe_is_a_config_file(call, capsys):
    path = recipe_path('quick')
    expected = printed_config(call, capsys, '--recipe', 'quick')
    assert printed_config(call, capsys, '--config', path) == expected
    assert expected['model_class'] == 'cifar_lit.speed.FastModel'
    wanted = read_recipe('quick')
    for part in ('data', 'model', 'trainer'):
        assert wanted[part].items() <= expected[part].items()
    # 다른 옵션은 어디에 적어도 레시피보다 앞선다.
    options = '--model.learning_rate 0.5 --recipe quick --data.batch_size 64'.split()
    changed = printed_config(call, capsys, *options)
    assert changed['model'] == {**expected['model'], 'learning_rate': 0.5}
    assert changed['data'] == {**expected['data'], 'batch_size': 64}
    plain = printed_config(call, capsys)
    assert plain['model_class'] == 'cifar_lit.model.LitModel'
    assert plain['model']['fused'] and plain['data']['batch_size'] == 32


SHORT = (
    '--data.source toy --trainer.limit_train_batches 3 --trainer.limit_val_batches 1'
).split()


def test_a_copied_and_changed_recipe(call, tmp_path):
    text = Path(recipe_path('quick')).read_text(encoding='utf-8')
    assert '32, 64, 128' in text
    Path('my.yaml').write_text(text.replace('32, 64, 128', '8, 16'), encoding='utf-8')
    assert call('fit', '--config', 'my.yaml', *SHORT, '--run_dir', 'run') is None
    best = 'run/checkpoints/best.ckpt'
    net = torch.load(best, weights_only=True)['net']
    assert net['arguments']['widths'] == (8, 16)
    # 실행 폴더의 config.yaml도 --config로 쓸 수 있다.
    again = ('--config', 'run/config.yaml', '--ckpt_path', best, '--run_dir', 'again')
    assert call('test', *again) is None
    Path('my.yaml').write_text('model: [1')
    assert 'my.yaml: YAML' in call('fit', '--config', 'my.yaml', *SHORT)


@pytest.mark.parametrize('make', [FastModel, RecordModel])
def test_a_checkpoint_of_the_notebook_is_read_by_the_command(make, call, capsys):
    trainer = pl.Trainer(
        max_steps=2,
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator='cpu',
    )
    dm = CIFAR10DataModule(16, source='toy')
    trainer.fit(make((3, 32, 32), 10, widths=(8, 16), size=16), dm)
    trainer.save_checkpoint('mine.ckpt')
    options = '--data.source toy --ckpt_path mine.ckpt --run_dir tested'.split()
    assert call('validate', *options) is None
    assert 'val_acc' in capsys.readouterr().out


def test_another_class_of_model(call):
    assert '불러올 수 없습니다' in call('fit', '--model_class', 'no_such.Model')
    wrong = ('--model_class', 'cifar_lit.data.CIFAR10DataModule')
    assert 'LitModel을 상속한' in call('fit', *wrong)


def test_wrong_recipe_and_missing_pictures(call):
    assert 'fast, quick' in call('tutorial', '--recipe', 'slow')
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
    with pytest.raises(InputError, match='whitening_epochs=-1'):
        FastModel((3, 32, 32), 10, whitening_epochs=-1)
    with pytest.raises(InputError, match='ns_steps=0: 1 이상'):
        FastModel((3, 32, 32), 10, ns_steps=0)


class Biases(pl.Callback):
    "에포크가 끝날 때마다 첫 층의 편향"

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append(pl_module.net.whiten.bias.detach().clone())


def biases_of(model, epochs):
    watched = Biases()
    trainer = pl.Trainer(
        max_epochs=epochs,
        limit_train_batches=2,
        limit_val_batches=0,
        callbacks=[watched],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator='cpu',
    )
    trainer.fit(model, CIFAR10DataModule(100, source='toy'))
    return watched.seen


def test_the_first_bias_is_learned_for_so_many_epochs():
    small = {'widths': (8, 8), 'size': 8}
    model = FastModel((3, 32, 32), 10, **small, whitening_epochs=2)
    for _ in range(2):  # 다시 학습할 때도 처음부터 배운다.
        before = model.net.whiten.bias.detach().clone()
        first, second, third = biases_of(model, 3)
        assert not torch.equal(before, first) and not torch.equal(first, second)
        assert torch.equal(second, third)
    first, second = biases_of(FastModel((3, 32, 32), 10, **small), 2)
    assert first.any() and not torch.equal(first, second)


def test_settings_reach_the_net_and_the_optimizer(monkeypatch):
    seen = []
    plain = speed.orthogonalize

    def counted(matrix, steps):
        seen.append(steps)
        return plain(matrix, steps)

    monkeypatch.setattr(speed, 'orthogonalize', counted)
    looks = dict(views=6, confidence=0.6, activation='silu')
    model = FastModel((3, 32, 32), 10, widths=(8, 8), size=16, ns_steps=5, **looks)
    assert looks.items() <= model.net.arguments.items()
    dm = CIFAR10DataModule(batch_size=20, source='toy')
    quiet = dict(enable_progress_bar=False, enable_model_summary=False)
    pl.Trainer(fast_dev_run=True, accelerator='cpu', **quiet).fit(model, dm)
    assert seen == [5] * 4  # 커널 넷
    assert FastModel((3, 32, 32), 10).net.confidence == 1


def test_a_checkpoint_says_how_its_net_was_activated():
    small = {'widths': (8, 8), 'size': 8}
    gelu, silu = (
        FastModel((3, 32, 32), 10, **small, activation=name)
        for name in ('gelu', 'silu')
    )
    weights, told = gelu.state_dict(), gelu.net.arguments
    older = {name: told[name] for name in told if name != 'activation'}
    for arguments in (told, older):
        checkpoint = {'state_dict': weights, 'net': {'arguments': arguments}}
        gelu.on_load_checkpoint(checkpoint)
        with pytest.raises(InputError, match='--model.activation.*gelu'):
            silu.on_load_checkpoint(checkpoint)
    checkpoint = {'state_dict': weights, 'net': {'arguments': silu.net.arguments}}
    silu.on_load_checkpoint(checkpoint)


def test_muon_goes_on_from_a_copy_and_from_an_older_state():
    kernel = torch.nn.Parameter(torch.ones(2, 2, 3, 3))
    made = speed.MuonWithAdam([kernel], [torch.nn.Parameter(torch.ones(1))], ns_steps=5)
    assert copy.deepcopy(made).param_groups[-1]['ns_steps'] == 5
    older = made.state_dict()
    del older['param_groups'][-1]['ns_steps']
    made.load_state_dict(older)
    kernel.grad = torch.randn(2, 2, 3, 3)
    made.step()
    assert kernel.isfinite().all() and not (kernel == 1).all()


class Sizes(pl.Callback):
    "스텝마다 배운 한 변과, 검증할 때마다 본 한 변"

    def setup(self, trainer, pl_module, stage):
        self.trained, self.tested = [], []
        pl_module.net.whiten.register_forward_pre_hook(self.note)

    def note(self, layer, inputs):
        seen = self.trained if layer.training else self.tested
        seen.append(inputs[0].shape[-1])


@pytest.mark.parametrize('make', [FastModel, RecordModel])
def test_pictures_grow_and_a_resumed_run_goes_on_at_its_size(make, tmp_path):
    dm = CIFAR10DataModule(16, source='toy')
    keep = dict(accelerator='cpu', logger=False, default_root_dir=tmp_path)
    quiet = dict(enable_progress_bar=False, enable_model_summary=False)
    length = dict(limit_train_batches=2, limit_val_batches=1, num_sanity_val_steps=0)

    def trained(epochs, **resumed):
        model = make((3, 32, 32), 10, widths=(8, 16), size=(16, 24, 32))
        sizes = Sizes()
        settings = dict(max_epochs=epochs, callbacks=[sizes])
        trainer = pl.Trainer(**keep, **quiet, **length, **settings)
        trainer.fit(model, dm, **resumed)
        return trainer, sizes

    trainer, sizes = trained(3)
    assert sizes.trained == [16, 16, 24, 24, 32, 32]
    assert set(sizes.tested) == {32}
    trainer.save_checkpoint(tmp_path / 'third.ckpt')
    _, sizes = trained(6, ckpt_path=tmp_path / 'third.ckpt', weights_only=True)
    assert sizes.trained == [24, 24, 32, 32, 32, 32]


def test_growing_sizes_from_the_command_line(call, capsys):
    grown = ('--model_class', 'cifar_lit.speed.FastModel', '--model.widths', '[8,16]')
    run = ('--run_dir', 'run', '--model.size')
    assert call('fit', *SHORT, *grown, *run, '[16,32]') is None
    checkpoint = torch.load('run/checkpoints/best.ckpt', weights_only=True)
    assert checkpoint['net']['arguments']['size'] in ([16, 32], (16, 32))
    tested = '--ckpt_path run/checkpoints/best.ckpt --run_dir tested'.split()
    assert call('test', '--data.source', 'toy', *tested) is None
    for wrong in ('[4,32]', '[]'):
        assert '8 이상이어야' in call('fit', *SHORT, *grown, *run, wrong)
    assert call('fit', *SHORT, *grown, *run, 'small') == 2
    assert '"model.size"' in capsys.readouterr().err


@pytest.mark.parametrize('precision', ['bf16-mixed', '32-true'])
def test_muon_multiplies_in_the_bits_that_are_fast_here(monkeypatch, precision):
    monkeypatch.setattr(speed, 'best_precision', lambda device: precision)
    matrix = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    x = matrix.double() / matrix.double().norm()
    for _ in range(3):  # 정의대로, 64비트로
        square = x @ x.mT
        x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ (square @ x)
    error = (speed.orthogonalize(matrix) - x).norm() / x.norm()
    assert (1e-3 < error < 5e-2) if precision == 'bf16-mixed' else error < 1e-5
