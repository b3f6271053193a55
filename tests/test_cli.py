"""명령 `cifar-lit` 전체: 남기는 것, 되읽기, 잘못된 입력, 죽은 W&B, 프로세스 여럿."""

import json
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import yaml
from given import ENV, read_rows
from PIL import Image

ONE_EPOCH = (
    '--trainer.max_epochs 1 --trainer.limit_train_batches 20 '
    '--trainer.enable_model_summary false'
).split()
QUICK = ['--data.source', 'toy', *ONE_EPOCH]
TWO_PROCESSES = '--trainer.accelerator cpu --trainer.devices 2'.split()


def names_in(folder):
    return {path.name for path in folder.iterdir()}


BLOCK, HEAD = 32768, 7  # LevelDB 로그의 블록과, 조각마다의 머리(crc, 길이, 종류)
WHOLE, LAST = 1, 4  # 기록이 여기서 끝나는 조각의 종류


def fragments(data):
    "LevelDB 로그의 조각마다 (종류, 내용). 맨 앞의 7바이트는 W&B의 머리이다."
    at = 7
    while at + HEAD <= len(data):
        left = BLOCK - at % BLOCK
        size = kind = 0
        if left >= HEAD:
            _, size, kind = struct.unpack('<IHB', data[at : at + HEAD])
        if not kind:  # 블록의 나머지는 비어 있다.
            at += left
            continue
        yield kind, data[at + HEAD : at + HEAD + size]
        at += HEAD + size


def records(run):
    "오프라인 실행의 .wandb 파일에 든 기록을 차례로 읽는다."
    from wandb.proto import wandb_internal_pb2

    [path] = run.glob('run-*.wandb')
    whole = b''
    for kind, content in fragments(path.read_bytes()):
        whole += content
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record.FromString(whole)
            whole = b''
            yield record.WhichOneof('record_type'), record


def items(entries):
    "기록의 항목을 이름과 값으로"
    named = {}
    for entry in entries:
        name = '.'.join(entry.nested_key) or entry.key
        named[name] = json.loads(entry.value_json)
    return named


def histories(found):
    return [items(record.history.item) for kind, record in found if kind == 'history']


def logged_config(found):
    config = {}
    for kind, record in found:
        if kind == 'config':
            config |= items(record.config.update)
        elif kind == 'run':
            config |= items(record.run.config.update)
    return config


def logged_summary(found):
    summary = {}
    for kind, record in found:
        if kind == 'summary':
            summary |= items(record.summary.update)
    return summary


def offline_run(folder):
    [run] = folder.glob('wandb/offline-run-*')
    return run


def test_tutorial_leaves_one_folder(cli, tmp_path):
    done = cli('tutorial', *QUICK)
    assert 'epoch 1/1 done' in done.stdout and '정확도: ' in done.stdout
    assert '\r' not in done.stdout and done.stderr == ''  # 흠처럼 보이는 것이 없다.
    assert names_in(tmp_path) == {'runs'}
    [folder] = (tmp_path / 'runs').iterdir()
    assert folder.name.endswith('-toy')
    files = {'config.yaml', 'hparams.yaml', 'metrics.csv', 'run.json', '.lock'}
    files |= {'examples-step=000020.png'}
    assert names_in(folder) == {*files, 'checkpoints', 'wandb'}
    assert names_in(folder / 'checkpoints') == {'best.ckpt', 'last.ckpt'}
    assert Image.open(folder / 'examples-step=000020.png').size > (500, 200)
    metrics = {'val_loss', 'val_acc', 'test_loss', 'test_acc', 'train_loss_epoch'}
    rows = read_rows(folder / 'metrics.csv')
    assert metrics <= rows[0].keys()
    # 마지막으로 보인 값은 에포크 전체의 것이다.
    [line] = [line for line in done.stdout.splitlines() if ' done ' in line]
    names = {'train_loss_epoch': 'loss', 'val_loss': 'val_loss', 'val_acc': 'val_acc'}
    for name, shown in names.items():
        [value] = [float(row[name]) for row in rows if row[name]]
        assert f' {shown} {value:.3f}' in line
    run = f'{folder.relative_to(tmp_path)}/wandb/offline-run-'
    assert f'터미널에서 보기: wandb leet {run}' in done.stdout
    assert f'W&B: wandb sync {run}' in done.stdout
    config = yaml.safe_load((folder / 'config.yaml').read_text())
    assert config['data']['source'] == 'toy'


def toy_validation():
    from cifar_lit.data import CIFAR10DataModule

    dm = CIFAR10DataModule(32, source='toy')
    dm.setup()
    return dm, next(iter(dm.val_dataloader()))


def test_wandb_files_hold_pictures_captions_and_hyperparameters(cli, tmp_path):
    from cifar_lit.parts.pictures import denormalize

    cli('tutorial', *QUICK, '--run_dir', 'run', '--examples.num_samples', 6)
    run = offline_run(tmp_path / 'run')
    found = list(records(run))
    [shown] = [row for row in histories(found) if 'examples.filenames' in row]
    dm, (images, labels) = toy_validation()
    expected = denormalize(images[:6]).permute(0, 2, 3, 1).numpy()
    paths = [run / 'files' / name for name in shown['examples.filenames']]
    saved = [np.asarray(Image.open(path)) for path in paths]
    assert len(saved) == 6 and all((a == b).all() for a, b in zip(saved, expected))
    answers = [caption.split('label: ')[1] for caption in shown['examples.captions']]
    assert answers == [dm.classes[k] for k in labels[:6]]
    hyperparameters = {
        **dm.hparams,
        'input_shape': [3, 32, 32],
        'num_classes': 10,
        'learning_rate': 2e-4,
        'source_used': 'toy',
    }
    config = logged_config(found)
    logged = {name: config.get(name, 'missing') for name in hyperparameters}
    assert logged == hyperparameters
    runs = [record.run for kind, record in found if kind == 'run']
    assert runs[-1].display_name.endswith('toy')
    assert [tag for run in runs for tag in run.tags][-1:] == ['toy']
    assert logged_summary(found)['data'] == 'toy'
    kind, record = found[-1]
    assert kind == 'exit' and record.exit.exit_code == 0


def test_auto_without_network_is_loud(here, capsys):
    with pytest.warns(UserWarning, match='진짜 CIFAR-10이 아닙니다'):
        assert here('tutorial', *ONE_EPOCH, '--data.source', 'auto') is None
    printed = capsys.readouterr().out
    assert '데이터: toy' in printed
    assert '-toy' in printed.split('실행 폴더: ')[1].splitlines()[0]


def test_own_pictures_then_validate_test_predict(here, tmp_path, toy_folder, capsys):
    mine = ['--data.source', 'photos']
    options = '--run_dir run --data.batch_size 8'.split()
    assert here('fit', *ONE_EPOCH, *mine, *options) is None
    best = ['--ckpt_path', 'run/checkpoints/best.ckpt']
    saved = ['--config', 'run/config.yaml', *best]
    for command, metric in (('validate', 'val_acc'), ('test', 'test_acc')):
        assert here(command, *saved, '--run_dir', command) is None
        assert metric in capsys.readouterr().out
    here('predict', *mine, *best, '--run_dir', 'predict')
    rows = read_rows(tmp_path / 'predict/predictions.csv')
    assert [row['index'] for row in rows] == [str(i) for i in range(30)]
    assert {row['label'] for row in rows} == {'airplane', 'automobile', 'bird'}
    assert all(1 / 3 <= float(row['probability']) <= 1 for row in rows)


BAD = {
    '--data.batch_size 0': 'batch_size=0',
    '--data.batch_size 9001': 'batch_size=9001',
    '--data.val_size 20000': 'val_size=20000',
    '--data.source cifar10': 'CIFAR-10을 받지 못했습니다',
    '--data.source cifar10 --data.data_dir file/data': "data_dir='file/data'",
    '--data.source nowhere': "source='nowhere'",
    '--data.source empty': 'empty에 클래스 폴더가',
    '--run_dir file/run': '실행 폴더',
    '--run_dir full': "run_dir='full'",
    '--ckpt_path nowhere.ckpt': 'nowhere.ckpt',
    '--examples.num_samples 0': 'num_samples=0',
    '--ckpt_path file': 'file: 체크포인트가 아니거나',
    '--trainer.barebones true': 'trainer.barebones=true',
    '--trainer.enable_checkpointing false': 'trainer.enable_checkpointing=false',
    '--trainer.limit_val_batches 0': 'trainer.limit_val_batches=0',
}


@pytest.mark.parametrize('options, words', BAD.items(), ids=list(BAD.values()))
def test_bad_input_names_the_thing_and_leaves_nothing(here, tmp_path, options, words):
    (tmp_path / 'file').write_text('not a checkpoint')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full/config.yaml').write_text('')
    (tmp_path / 'empty').mkdir()
    message = here('fit', '--data.source', 'toy', *options.split())
    assert message.startswith('cifar-lit: ') and words in message
    assert '\n' not in message
    left = {path.name for path in tmp_path.rglob('*')}
    assert left == {'file', 'full', 'config.yaml', 'empty'}


def test_the_command_shows_no_traceback(cli):
    done = cli('fit', '--data.batch_size', 0, check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith('cifar-lit: batch_size=0')


def test_bf16_falls_back_and_says_so(here, tmp_path, monkeypatch):
    def without_bf16(accelerator='auto'):
        return '32-true'

    monkeypatch.setattr('cifar_lit.parts.cli.best_precision', without_bf16)
    options = '--trainer.precision bf16-mixed --run_dir run'.split()
    with pytest.warns(UserWarning, match='32-true로 학습합니다'):
        assert here('fit', *QUICK, *options) is None
    assert 'precision: 32-true' in (tmp_path / 'run/config.yaml').read_text()


def test_checkpoint_of_another_shape(here, tmp_path, toy_folder):
    options = '--run_dir run --trainer.limit_val_batches 1'.split()
    assert here('fit', *QUICK, *options) is None
    checkpoint = ['--ckpt_path', 'run/checkpoints/last.ckpt']
    message = here('test', '--data.source', 'photos', *checkpoint, '--run_dir', 'other')
    assert message.startswith('cifar-lit: ') and 'net.fc3.weight' in message
    assert not (tmp_path / 'other').exists()


def script(tmp_path, body):
    "새 프로세스에서 `body`를 돌린다."
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


KILLED = """
    import psutil
    import lightning.pytorch as pl
    from cifar_lit.callbacks import ImagePredictionLogger
    from cifar_lit.data import CIFAR10DataModule
    from cifar_lit.model import LitModel
    from cifar_lit.parts.loggers import SafeWandbLogger

    def is_wandb(process):
        return 'wandb-core' in ' '.join(process.cmdline())

    class Kill(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 3:
                [victim] = filter(is_wandb, psutil.Process().children())
                victim.kill()

    logger = SafeWandbLogger(save_dir='run')
    trainer = pl.Trainer(
        max_epochs=2,
        limit_train_batches=10,
        log_every_n_steps=1,
        logger=logger,
        accelerator='cpu',
        enable_progress_bar=False,
        callbacks=[Kill(), ImagePredictionLogger()],
        default_root_dir='run',
    )
    trainer.fit(LitModel((3, 32, 32), 10), CIFAR10DataModule(32, source='toy'))
    print('steps', trainer.global_step, logger.finish())
"""


def test_training_survives_a_killed_wandb(tmp_path):
    done = script(tmp_path, KILLED)
    assert 'steps 20 wandb sync run/wandb/offline-run-' in done.stdout
    assert done.stderr.count('UserWarning: W&B 기록이 실패해') == 1


REFUSED = """
    import os
    closed = 'http://127.0.0.1:9'
    os.environ.update(
        WANDB_MODE='online', WANDB_API_KEY='0' * 40, WANDB_BASE_URL=closed
    )
    import wandb
    from cifar_lit.parts.loggers import SafeWandbLogger

    start = wandb.init

    def refuse(**settings):
        if settings['mode'] == 'online':
            raise wandb.errors.CommError('닫힌 포트')
        return start(**settings)

    wandb.init = refuse
    logger = SafeWandbLogger(save_dir='run')
    logger.log_metrics({'a': 1.0}, step=1)
    print(logger.experiment.offline, logger.finish())
"""


def test_wandb_falls_back_when_it_cannot_start(tmp_path):
    done = script(tmp_path, REFUSED)
    assert 'True wandb sync run/wandb/offline-run-' in done.stdout
    assert 'W&B를 online 방식으로 시작하지 못했습니다' in done.stderr


def test_two_processes_log_once_and_agree(cli, tmp_path):
    options = '--run_dir run --trainer.log_every_n_steps 10'.split()
    done = cli('tutorial', *QUICK, *TWO_PROCESSES, *options)
    assert done.stdout.count('정확도: ') == 1
    rows = histories(records(offline_run(tmp_path / 'run')))
    assert sum('examples.filenames' in row for row in rows) == 1
    assert sum('val_loss' in row for row in rows) == 1
    assert names_in(tmp_path) == {'run'}


OLD = """
    import os
    os.environ.pop('WANDB_MODE', None)
    import wandb
    from cifar_lit.parts.loggers import wandb_mode

    def ask(verify=False):
        return input('API key: ')

    wandb.login = ask
    modes = []
    for key in (None, '0' * 40):
        wandb.api = type('api', (), {'api_key': key})
        modes.append(wandb_mode())
    print(*modes)
"""


def test_wandb_before_0_31_is_not_asked(tmp_path):
    assert script(tmp_path, OLD).stdout == 'offline online\n'


BAD_KEY = """
    import os
    os.environ['WANDB_MODE'] = 'online'
    import wandb
    from cifar_lit.parts.loggers import SafeWandbLogger

    modes, start = [], wandb.init

    def watch(**settings):
        modes.append(settings['mode'])
        return start(**settings)

    wandb.init = watch
    for key, offline in ((None, False), ('short', False), ('0' * 40, True)):
        os.environ.pop('WANDB_API_KEY', None)
        if key:
            os.environ['WANDB_API_KEY'] = key
        logger = SafeWandbLogger(save_dir='run', offline=offline)
        logger.log_metrics({'a': 1.0}, step=1)
        logger.finish()
    print(*modes)
"""


def test_wandb_never_asks_and_falls_back_on_a_bad_key(tmp_path):
    done = script(tmp_path, BAD_KEY)
    assert done.stdout == 'offline offline offline\n'
    assert done.stderr.count('UserWarning: W&B에 로그인하지 못해') == 1


def best_of(folder):
    "체크포인트가 기억하는 가장 좋은 체크포인트의 경로와 손실"
    checkpoint = torch.load(folder / 'checkpoints/last.ckpt', weights_only=True)
    callbacks = checkpoint['callbacks'].items()
    [state] = [state for name, state in callbacks if 'BestCheckpoint' in name]
    return state['best_model_path'], float(state['best_model_score'])


def loss_when_tested(folder):
    "테스트 손실"
    rows = read_rows(folder / 'metrics.csv')
    [loss] = [row['test_loss'] for row in rows if row.get('test_loss')]
    return loss


def test_resume_keeps_the_best_and_counts_only_this_session(here, tmp_path, capsys):
    path = tmp_path / 'first/checkpoints/last.ckpt'
    short = (
        '--data.source toy --trainer.limit_train_batches 30 '
        '--trainer.enable_model_summary false --trainer.max_epochs'
    ).split()
    resumed = ['--ckpt_path', 'first/checkpoints/last.ckpt', '--run_dir']
    assert here('fit', *short, 2, '--run_dir', 'first') is None
    assert here('tutorial', *short, 2, *resumed, 'again') is None
    assert '0에포크' in capsys.readouterr().out
    checkpoint = torch.load(path, weights_only=True)
    [group] = checkpoint['optimizer_states'][0]['param_groups']
    group['lr'] = 3.0  # 이어서 학습하면 나빠지기만 한다.
    torch.save(checkpoint, path)
    assert here('tutorial', *short, 3, *resumed, 'more') is None
    assert ', 1에포크' in capsys.readouterr().out
    assert best_of(tmp_path / 'more') == best_of(tmp_path / 'first')
    assert loss_when_tested(tmp_path / 'more') == loss_when_tested(tmp_path / 'again')
    config = yaml.safe_load((tmp_path / 'more/config.yaml').read_text())
    assert config['ckpt_path'] == 'first/checkpoints/last.ckpt'
    best = best_of(tmp_path / 'first')[1]
    (tmp_path / 'first').rename(tmp_path / 'moved')
    assert here('resume', 'moved', '--trainer.max_epochs', 3) is None
    assert '스텝 60 다음부터 이어서 합니다.' in capsys.readouterr().out
    path, score = best_of(tmp_path / 'moved')
    assert score == best and 'moved' in path


def test_gradient_clipping_works_with_the_defaults(here):
    options = '--trainer.gradient_clip_val 1 --run_dir run'.split()
    assert here('fit', *QUICK, *options) is None


def test_overfitting_a_few_batches_learns_them_again_and_resumes(here, monkeypatch):
    from cifar_lit.model import LitModel

    seen, step = [], LitModel.training_step

    def watched(self, batch, batch_idx):
        if len(seen) == fails_at:
            raise RuntimeError('stopped')
        seen.append(batch[0].sum().item())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LitModel, 'training_step', watched)
    options = (
        '--data.source toy --trainer.overfit_batches 3 --last.steps 1 '
        '--trainer.enable_model_summary false --trainer.max_epochs'
    ).split()
    fails_at = 4  # 둘째 에포크의 둘째 배치
    with pytest.raises(RuntimeError, match='stopped'):
        here('fit', *options, 2, '--run_dir', 'run')
    fails_at = None
    assert here('resume', 'run') is None
    assert here('resume', 'run', '--trainer.max_epochs', 3) is None
    best = ['--ckpt_path', 'run/checkpoints/best.ckpt']
    before = torch.load(best[1], weights_only=True)['global_step']
    assert before % 3 == 0
    assert here('fit', *options, 4, '--run_dir', 'more', *best) is None
    assert len(set(seen[:3])) == 3
    assert seen == (len(seen) // 3) * seen[:3]
    assert len(seen) == 9 + 12 - before


def test_training_that_was_never_validated_tests_the_last(here, tmp_path, capsys):
    options = '--run_dir run --trainer.check_val_every_n_epoch 5'.split()
    assert here('tutorial', *QUICK, *options) is None
    last = 'run/checkpoints/last.ckpt'
    assert f'체크포인트: {last} (검증하지 않아 마지막 것)' in capsys.readouterr().out
    saved = ['--config', 'run/config.yaml', '--ckpt_path', last]
    assert here('test', *saved, '--run_dir', 'test') is None
    assert loss_when_tested(tmp_path / 'run') == loss_when_tested(tmp_path / 'test')


def test_wandb_starts_before_the_pictures_when_it_is_used(here, monkeypatch):
    from cifar_lit.data import CIFAR10DataModule

    order, prepare = [], CIFAR10DataModule.prepare_data

    def prepared(self):
        order.append('pictures')
        prepare(self)

    def started():
        order.append('wandb')

    monkeypatch.setattr('cifar_lit.parts.cli.prepare_wandb', started)
    monkeypatch.setattr(CIFAR10DataModule, 'prepare_data', prepared)
    assert here('fit', *QUICK, '--run_dir', 'run') is None
    assert order[:2] == ['wandb', 'pictures']
    for option in ('logger=false', 'fast_dev_run=true'):
        order.clear()
        assert here('fit', *QUICK, '--run_dir', option, f'--trainer.{option}') is None
        assert order[0] == 'pictures' and 'wandb' not in order


def test_failure_after_training_closes_wandb(here, monkeypatch):
    import lightning.pytorch as pl
    import wandb

    def broken(*args, **kwargs):
        raise RuntimeError('테스트 중 오류')

    monkeypatch.setattr(pl.Trainer, 'test', broken)
    with (
        pytest.raises(RuntimeError, match='테스트 중 오류'),
        pytest.warns(UserWarning, match='W&B 실행을 닫았습니다'),
    ):
        here('tutorial', *QUICK, '--run_dir', 'run')
    assert wandb.run is None


def test_two_processes_predict_into_one_folder(here, cli, tmp_path):
    assert here('fit', *QUICK, '--run_dir', 'run') is None
    options = '--data.source toy --ckpt_path run/checkpoints/best.ckpt'.split()
    cli('predict', *options, *TWO_PROCESSES)
    [folder] = (tmp_path / 'runs').iterdir()
    rows = []
    for rank in (0, 1):
        rows += read_rows(folder / f'predictions-{rank}.csv')
    assert sorted({int(row['index']) for row in rows}) == list(range(2000))
