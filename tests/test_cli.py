"""명령 `cifar-lit` 전체: 남기는 것, 되읽기, 잘못된 입력, 죽은 W&B, 프로세스 여럿."""

import csv
import json
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import yaml
from conftest import ENV
from PIL import Image

QUICK = (
    '--data.source',
    'toy',
    '--trainer.max_epochs',
    1,
    '--trainer.limit_train_batches',
    20,
    '--trainer.enable_model_summary',
    'false',
)


def records(run):
    "오프라인 실행의 .wandb 파일에 든 기록을 차례로 읽는다. LevelDB 로그 형식: 32 KiB 블록마다 머리 7바이트(crc, 길이, 종류)와 내용"
    from wandb.proto import wandb_internal_pb2

    [path] = run.glob('run-*.wandb')
    data, at, whole = path.read_bytes(), 7, b''
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        _, size, kind = (
            struct.unpack('<IHB', data[at : at + 7]) if left >= 7 else (0, 0, 0)
        )
        if not kind:
            at += left
            continue
        whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):
            record, whole = wandb_internal_pb2.Record.FromString(whole), b''
            yield record.WhichOneof('record_type'), record


def items(entries):
    return {'.'.join(e.nested_key) or e.key: json.loads(e.value_json) for e in entries}


def offline_run(folder):
    [run] = folder.glob('wandb/offline-run-*')
    return run


def test_tutorial_leaves_one_folder(cli, tmp_path):
    done = cli('tutorial', *QUICK)
    assert (
        'epoch 1/1 done' in done.stdout
        and '정확도: ' in done.stdout
        and '\r' not in done.stdout + done.stderr
    )
    assert [p.name for p in tmp_path.iterdir()] == ['runs']
    [folder] = (tmp_path / 'runs').iterdir()
    assert folder.name.endswith('-toy')
    assert {p.name for p in folder.iterdir()} == {
        'config.yaml',
        'hparams.yaml',
        'metrics.csv',
        'checkpoints',
        'wandb',
        'examples-step=000020.png',
    }
    assert {p.name for p in (folder / 'checkpoints').iterdir()} == {
        'best.ckpt',
        'last.ckpt',
    }
    assert Image.open(folder / 'examples-step=000020.png').size > (500, 200)
    rows = list(csv.DictReader(open(folder / 'metrics.csv')))
    assert {'val_loss', 'val_acc', 'test_loss', 'test_acc', 'train_loss_epoch'} <= rows[
        0
    ].keys()
    assert (
        yaml.safe_load((folder / 'config.yaml').read_text())['data']['source'] == 'toy'
    )


def test_wandb_files_hold_pictures_captions_and_hyperparameters(cli, tmp_path):
    from cifar_lit.data import CIFAR10DataModule, denormalize

    cli('tutorial', *QUICK, '--run_dir', 'run', '--examples.num_samples', 6)
    run = offline_run(tmp_path / 'run')
    found = list(records(run))
    [shown] = [
        history
        for history in (items(r.history.item) for kind, r in found if kind == 'history')
        if 'examples.filenames' in history
    ]
    dm = CIFAR10DataModule(32, source='toy')
    dm.setup()
    images, labels = next(iter(dm.val_dataloader()))
    expected = denormalize(images[:6]).permute(0, 2, 3, 1).numpy()
    saved = [
        np.asarray(Image.open(run / 'files' / name))
        for name in shown['examples.filenames']
    ]
    assert len(saved) == 6 and all((a == b).all() for a, b in zip(saved, expected))
    assert [caption.split('label: ')[1] for caption in shown['examples.captions']] == [
        dm.classes[k] for k in labels[:6]
    ]
    config = {}
    for kind, r in found:
        for e in {'config': r.config.update, 'run': r.run.config.update}.get(kind, ()):
            config[e.key or '.'.join(e.nested_key)] = json.loads(e.value_json)
    hyper = {
        **dm.hparams,
        'input_shape': [3, 32, 32],
        'num_classes': 10,
        'learning_rate': 2e-4,
        'source_used': 'toy',
    }
    assert {name: config.get(name, 'missing') for name in hyper} == hyper
    assert [r.run.display_name for kind, r in found if kind == 'run'][-1].endswith(
        'toy'
    )
    assert ['toy'] == [tag for kind, r in found if kind == 'run' for tag in r.run.tags][
        -1:
    ]
    assert {'data': 'toy'}.items() <= {
        k: v
        for kind, r in found
        if kind == 'summary'
        for k, v in items(r.summary.update).items()
    }.items()
    assert found[-1][0] == 'exit' and found[-1][1].exit.exit_code == 0


def test_auto_without_network_is_loud(cli):
    done = cli('tutorial', *QUICK[2:], '--data.source', 'auto')
    assert '진짜 CIFAR-10이 아닙니다' in done.stderr and '데이터: toy' in done.stdout
    assert '-toy' in done.stdout.split('실행 폴더: ')[1].splitlines()[0]


def test_own_pictures_then_validate_test_predict(here, tmp_path, toy_folder, capsys):
    assert (
        here(
            'fit',
            *QUICK[2:],
            '--data.source',
            'photos',
            '--run_dir',
            'run',
            '--data.batch_size',
            8,
        )
        is None
    )
    best = 'run/checkpoints/best.ckpt'
    for command, metric in (('validate', 'val_acc'), ('test', 'test_acc')):
        assert (
            here(
                command,
                '--config',
                'run/config.yaml',
                '--ckpt_path',
                best,
                '--run_dir',
                command,
            )
            is None
        )
        assert metric in capsys.readouterr().out
    here(
        'predict',
        '--data.source',
        'photos',
        '--ckpt_path',
        best,
        '--run_dir',
        'predict',
    )
    rows = list(csv.DictReader(open(tmp_path / 'predict/predictions.csv')))
    assert [row['index'] for row in rows] == [str(i) for i in range(30)]
    assert {row['label'] for row in rows} == {'airplane', 'automobile', 'bird'} and all(
        1 / 3 <= float(row['probability']) <= 1 for row in rows
    )


BAD = [
    (('--data.batch_size', 0), 'batch_size=0'),
    (('--data.batch_size', 9001), 'batch_size=9001'),
    (('--data.val_size', 20000), 'val_size=20000'),
    (('--data.source', 'cifar10'), 'CIFAR-10을 받지 못했습니다'),
    (
        ('--data.source', 'cifar10', '--data.data_dir', 'file/data'),
        "data_dir='file/data'",
    ),
    (('--data.source', 'nowhere'), "source='nowhere'"),
    (('--data.source', 'empty'), 'empty에 train/ 폴더가 없습니다'),
    (('--run_dir', 'file/run'), '실행 폴더'),
    (('--run_dir', 'full'), "run_dir='full'"),
    (('--ckpt_path', 'nowhere.ckpt'), 'nowhere.ckpt'),
    (('--examples.num_samples', 0), 'num_samples=0'),
    (('--ckpt_path', 'file'), 'file: 체크포인트가 아니거나'),
]


@pytest.mark.parametrize('args, words', BAD, ids=[words for _, words in BAD])
def test_bad_input_names_the_thing_and_leaves_nothing(here, tmp_path, args, words):
    (tmp_path / 'file').write_text('not a checkpoint')
    (
        (tmp_path / 'full').mkdir(),
        (tmp_path / 'full/config.yaml').write_text(''),
        (tmp_path / 'empty').mkdir(),
    )
    message = here('fit', '--data.source', 'toy', *args)
    assert (
        message.startswith('cifar-lit: ') and words in message and '\n' not in message
    )
    assert {p.name for p in tmp_path.rglob('*')} == {
        'file',
        'full',
        'config.yaml',
        'empty',
    }


def test_the_command_shows_no_traceback(cli):
    done = cli('fit', '--data.batch_size', 0, check=False)
    assert (
        done.returncode == 1
        and 'Traceback' not in done.stderr
        and done.stderr.splitlines()[-1].startswith('cifar-lit: batch_size=0')
    )


def test_bf16_falls_back_and_says_so(here, monkeypatch):
    monkeypatch.setattr(
        'cifar_lit.train.best_precision', lambda accelerator='auto': '32-true'
    )
    with pytest.warns(UserWarning, match='32-true로 학습합니다'):
        assert (
            here('fit', *QUICK, '--trainer.precision', 'bf16-mixed', '--run_dir', 'run')
            is None
        )
    assert 'precision: 32-true' in open('run/config.yaml').read()


def test_checkpoint_of_another_shape(here, tmp_path, toy_folder):
    assert (
        here('fit', *QUICK, '--run_dir', 'run', '--trainer.limit_val_batches', 1)
        is None
    )
    message = here(
        'test',
        '--data.source',
        'photos',
        '--ckpt_path',
        'run/checkpoints/last.ckpt',
        '--run_dir',
        'other',
    )
    assert (
        message.startswith('cifar-lit: ')
        and 'net.fc3.weight' in message
        and not (tmp_path / 'other').exists()
    )


def script(tmp_path, body):
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(body)],
        cwd=tmp_path,
        env=ENV,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_training_survives_a_killed_wandb(tmp_path):
    done = script(
        tmp_path,
        """
        import psutil
        import lightning.pytorch as pl
        from cifar_lit.callbacks import ImagePredictionLogger
        from cifar_lit.data import CIFAR10DataModule
        from cifar_lit.model import LitModel
        from cifar_lit.train import SafeWandbLogger

        class Kill(pl.Callback):
            def on_train_batch_end(self, trainer, *args):
                if trainer.global_step != 3: return
                [victim] = [child for child in psutil.Process().children() if 'wandb-core' in ' '.join(child.cmdline())]
                victim.kill()

        logger = SafeWandbLogger(save_dir='run')
        trainer = pl.Trainer(max_epochs=2, limit_train_batches=10, log_every_n_steps=1, logger=logger, accelerator='cpu', enable_progress_bar=False,
                             callbacks=[Kill(), ImagePredictionLogger()], default_root_dir='run')
        trainer.fit(LitModel((3, 32, 32), 10), CIFAR10DataModule(32, source='toy'))
        print('steps', trainer.global_step, logger.finish())
    """,
    )
    assert (
        'steps 20 wandb sync run/wandb/offline-run-' in done.stdout
        and done.stderr.count('UserWarning: W&B 기록이 실패해') == 1
    )


def test_wandb_falls_back_when_it_cannot_start(tmp_path):
    done = script(
        tmp_path,
        """
        import os
        os.environ.update(WANDB_MODE='online', WANDB_API_KEY='0' * 40, WANDB_BASE_URL='http://127.0.0.1:9')
        import wandb
        from cifar_lit import train
        start = wandb.init
        def refuse(**settings):
            if settings['mode'] == 'online': raise wandb.errors.CommError('닫힌 포트')
            return start(**settings)
        wandb.init = refuse
        logger = train.SafeWandbLogger(save_dir='run')
        logger.log_metrics({'a': 1.0}, step=1)
        print(logger.experiment.offline, logger.finish())
    """,
    )
    assert (
        'True wandb sync run/wandb/offline-run-' in done.stdout
        and 'W&B를 online 방식으로 시작하지 못했습니다' in done.stderr
    )


def test_two_processes_log_once_and_agree(cli, tmp_path):
    done = cli(
        'tutorial',
        *QUICK,
        '--trainer.accelerator',
        'cpu',
        '--trainer.devices',
        2,
        '--run_dir',
        'run',
        '--trainer.log_every_n_steps',
        10,
    )
    assert done.stdout.count('정확도: ') == 1
    run = offline_run(tmp_path / 'run')
    histories = [items(r.history.item) for kind, r in records(run) if kind == 'history']
    assert sum('examples.filenames' in history for history in histories) == 1
    assert sum('val_loss' in history for history in histories) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ['run']


def test_wandb_before_0_31_is_not_asked(tmp_path):
    done = script(
        tmp_path,
        """
        import os
        os.environ.pop('WANDB_MODE', None)
        import wandb
        from cifar_lit import train
        wandb.login = lambda verify=False: input('API key: ')
        modes = []
        for key in (None, '0' * 40):
            wandb.api = type('api', (), {'api_key': key})
            modes.append(train._wandb_mode())
        print(*modes)
    """,
    )
    assert done.stdout == 'offline online\n'


def test_wandb_never_asks_and_falls_back_on_a_bad_key(tmp_path):
    done = script(
        tmp_path,
        """
        import os, sys
        os.environ['WANDB_MODE'] = 'online'
        import wandb
        from cifar_lit import train
        modes, start = [], wandb.init
        wandb.init = lambda **settings: modes.append(settings['mode']) or start(**settings)
        for key, offline in ((None, False), ('short', False), ('0' * 40, True)):
            os.environ.pop('WANDB_API_KEY', None)
            if key: os.environ['WANDB_API_KEY'] = key
            logger = train.SafeWandbLogger(save_dir='run', offline=offline)
            logger.log_metrics({'a': 1.0}, step=1)
            logger.finish()
        print(*modes)
    """,
    )
    assert (
        done.stdout == 'offline offline offline\n'
        and done.stderr.count('UserWarning: W&B에 로그인하지 못해') == 1
    )


def best_of(folder):
    saved = torch.load(folder / 'checkpoints/last.ckpt', weights_only=True)['callbacks']
    [state] = [state for name, state in saved.items() if 'Checkpoint' in name]
    return state['best_model_path'], float(state['best_model_score'])


def test_resume_keeps_the_best_and_counts_only_this_session(here, tmp_path, capsys):
    short = (
        '--data.source',
        'toy',
        '--trainer.limit_train_batches',
        30,
        '--trainer.enable_model_summary',
        'false',
    )
    assert here('fit', *short, '--trainer.max_epochs', 2, '--run_dir', 'first') is None
    assert (
        here(
            'tutorial',
            *short,
            '--trainer.max_epochs',
            2,
            '--run_dir',
            'again',
            '--ckpt_path',
            'first/checkpoints/last.ckpt',
        )
        is None
    )
    assert '0에포크' in capsys.readouterr().out
    saved = torch.load('first/checkpoints/last.ckpt', weights_only=True)
    saved['optimizer_states'][0]['param_groups'][0]['lr'] = (
        3.0  # 이어서 학습하면 나빠지기만 한다.
    )
    torch.save(saved, 'first/checkpoints/last.ckpt')
    assert (
        here(
            'tutorial',
            *short,
            '--trainer.max_epochs',
            3,
            '--run_dir',
            'more',
            '--ckpt_path',
            'first/checkpoints/last.ckpt',
        )
        is None
    )
    assert ', 1에포크' in capsys.readouterr().out
    assert best_of(tmp_path / 'more') == best_of(tmp_path / 'first')
    assert (
        yaml.safe_load((tmp_path / 'more/config.yaml').read_text())['ckpt_path']
        == 'first/checkpoints/last.ckpt'
    )


def test_gradient_clipping_works_with_the_defaults(here):
    assert (
        here('fit', *QUICK, '--trainer.gradient_clip_val', 1, '--run_dir', 'run')
        is None
    )


def test_failure_after_training_closes_wandb(here, monkeypatch):
    import lightning.pytorch as pl
    import wandb

    def broken(*args, **kwargs):
        raise RuntimeError('평가 중 오류')

    monkeypatch.setattr(pl.Trainer, 'test', broken)
    with (
        pytest.raises(RuntimeError, match='평가 중 오류'),
        pytest.warns(UserWarning, match='W&B 실행을 닫았습니다'),
    ):
        here('tutorial', *QUICK, '--run_dir', 'run')
    assert wandb.run is None


def test_two_processes_predict_into_one_folder(cli, tmp_path):
    cli('tutorial', *QUICK, '--run_dir', 'run')
    cli(
        'predict',
        '--data.source',
        'toy',
        '--ckpt_path',
        'run/checkpoints/best.ckpt',
        '--trainer.accelerator',
        'cpu',
        '--trainer.devices',
        2,
    )
    [made] = (tmp_path / 'runs').iterdir()
    rows = [
        row
        for k in (0, 1)
        for row in csv.DictReader(
            (made / f'predictions-{k}.csv').open(encoding='utf-8')
        )
    ]
    assert sorted({int(row['index']) for row in rows}) == list(range(2000))
