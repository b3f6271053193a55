"""파일을 읽는 것마다 atheris(libFuzzer)로 흔들어 본다.

`python fuzz.py archive FOLDER [libFuzzer의 옵션]`. `InputError`나 제대로 읽은 것 말고
다른 것이 나오거나, 메모리가 `-rss_limit_mb`를 넘거나, 한 번에 `-timeout`초를 넘으면
그 입력을 남기고 멈춘다. 찾은 것은 `bad_files.py`에 더한다.
"""

import gzip
import io
import os
import sys
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path

import atheris
import bad_files
import numpy as np
import torch
from PIL import Image

with atheris.instrument_imports(include=['cifar_lit.parts', 'zipfile']):
    from cifar_lit.parts import archive, checkpoints, folder
    from cifar_lit.parts.files import InputError

WORK = Path(tempfile.mkdtemp())


def sealed(block):
    "tar 머리말의 합을 맞춘다. 안 그러면 거의 모든 변형이 첫 확인에서 걸린다."
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block[:512])
    return block


def seal_tar(data):
    "머리말마다 합을 맞춘 tar"
    made, at = bytearray(data), 0
    while at + 512 <= len(made):
        block = made[at : at + 512]
        if any(block):
            made[at : at + 512] = sealed(block)
        size = bytes(block[124:135])
        digits = size.isdigit() and not set(size) & set(b'89')
        at += 512 + (int(size, 8) + 511) // 512 * 512 if digits else 512
    return bytes(made)


def read_archive(data):
    "첫 바이트가 고른다: 파일 그대로, 눌러서, 합까지 맞춰 눌러서, 배치만"
    path = WORK / 'cifar-10-python.tar.gz'
    kind, data = data[:1], data[1:]
    if kind == b'b':
        contents = [('test_batch', data)]
        archive.read_batches(contents, 'test', 'somewhere', bad_files.ROWS)
        return
    if kind == b't':
        data = gzip.compress(data, 1)
    elif kind == b's':
        data = gzip.compress(seal_tar(data), 1)
    path.write_bytes(data)
    archive.read_archive(path, 'train', bad_files.ROWS)


def archive_seeds():
    batches = [bad_files.batch(protocol) for protocol in (2, 3, 4, 5)]
    batches.append(bad_files.python2_batch())
    for data in [*batches, *(data for _, data in bad_files.batch_faults(WORK))]:
        if len(data) < 20_000:
            yield b'b' + data
    tiny = dict.fromkeys(bad_files.NAMES, b'\x80\x02}.')
    whole = b''.join(bad_files.members(**tiny).values())
    yield b't' + whole
    yield b's' + whole
    yield b'r' + gzip.compress(whole)
    for _, data in [*bad_files.tar_faults(), *bad_files.gzip_faults()]:
        if len(data) < 20_000:
            yield b'r' + data


def sealed_zip(data):
    "zip의 목차에 적힌 CRC-32를 맞춘다. 못 열면 그대로"
    made = bytearray(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            infos, at = opened.infolist(), opened.start_dir
        for info in infos:
            head = data[info.header_offset : info.header_offset + 30]
            start = (
                info.header_offset + 30 + sum(head[26:30:2]) + 256 * sum(head[27::2])
            )
            crc = zlib.crc32(data[start : start + info.file_size])
            at = data.find(b'PK\x01\x02', at)
            made[at + 16 : at + 20] = crc.to_bytes(4, 'little')
            at += 46
    except Exception:  # 망가진 zip은 그대로 읽혀 본다.
        return data
    return bytes(made)


def photos():
    "사진 넷이 든 폴더와, 거기서 읽은 것"
    at = WORK / 'photos'
    for k, name in enumerate('abcd'):
        target = at / ('train' if k < 2 else 'test') / 'uv'[k % 2]
        target.mkdir(parents=True, exist_ok=True)
        picture = target / f'{name}.png'
        if not picture.exists():  # 고친 시각이 캐시의 열쇠에 든다.
            Image.new('RGB', (32, 32), (60 * k, 9, 9)).save(picture)
    return at


def listed(at):
    rows = folder.list_pictures(at, folder.folder_classes(at))
    (cache,) = (at / '.cifar_lit').iterdir()
    with np.load(cache) as saved:
        return rows, str(saved['key']), dict(saved)


NAMES = [f'{name}.npy' for name in ('images', 'labels', 'is_train', 'bad', 'key')]
BETWEEN = b'<->'


def cache_reader():
    "첫 바이트가 고른다: 파일 그대로, CRC-32를 맞춰, 배열 다섯만"
    at = photos()
    folder.folder_pictures(at)
    rows, key, _ = listed(at)
    path = WORK / 'cache.npz'

    def read(data):
        kind, data = data[:1], data[1:]
        if kind == b'a':
            data = bad_files.zipped(dict(zip(NAMES, data.split(BETWEEN))))
        elif kind == b's':
            data = sealed_zip(data)
        path.write_bytes(data)
        found = folder._load_cache(path, folder._read_file(path), key, rows, 32)
        if found is not None:
            count = len(found['labels'])
            assert found['images'].shape == (count, 3, 32, 32) and count <= 4
            assert set(found['labels'].tolist()) <= {0, 1}
            assert count + len(found['bad']) == 4
            for text in found['bad']:
                text.encode('utf-8', 'surrogatepass')

    return read


def cache_seeds():
    at = photos()
    folder.folder_pictures(at)
    arrays = listed(at)[2]
    good = {f'{name}.npy': bad_files.npy(value) for name, value in arrays.items()}
    yield b's' + bad_files.zipped(good)
    yield b'a' + BETWEEN.join(good[name] for name in NAMES)
    few = {name: value[:3] for name, value in arrays.items() if value.ndim}
    few |= {'bad': np.array(['x.png']), 'key': arrays['key']}
    parts = [bad_files.npy(few[name.removesuffix('.npy')]) for name in NAMES]
    yield b'a' + BETWEEN.join(parts)
    for _, data in bad_files.bad_caches(arrays, WORK):
        if len(data) < 40_000:
            yield b's' + data
            yield b'r' + data


def read_checkpoint(data):
    "첫 바이트가 고른다: 파일 그대로, CRC-32를 맞춰, pickle만"
    path = WORK / 'x.ckpt'
    kind, data = data[:1], data[1:]
    if kind == b'p':
        data = bad_files.checkpoint(data)
    elif kind == b's':
        data = sealed_zip(data)
    path.write_bytes(data)
    checkpoints.read_checkpoint(path)


def checkpoint_seeds():
    buffer = io.BytesIO()
    saved = {'state_dict': {'w': torch.arange(64.0)}, 'epoch': 3}
    torch.save(saved, buffer)
    yield b's' + buffer.getvalue()
    old = io.BytesIO()
    torch.save(saved, old, _use_new_zipfile_serialization=False)
    yield b'r' + old.getvalue()
    yield b'p' + bad_files.state()
    linear = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(linear.parameters())
    everything = {'state_dict': linear.state_dict(), 'x': optimizer.state_dict()}
    everything |= {'set': {1}, 'size': torch.Size([2]), 'type': torch.half}
    buffer = io.BytesIO()
    torch.save(everything, buffer)
    with zipfile.ZipFile(buffer) as opened:
        yield b'p' + opened.read('archive/data.pkl')
    torch.save(everything, WORK / 'good.ckpt')
    good = (WORK / 'good.ckpt').read_bytes()
    for _, data in bad_files.bad_checkpoints(WORK, good):
        if len(data) < 20_000:
            yield b's' + data
    for _, extra in bad_files.bad_pickles(WORK):
        if len(extra) < 20_000:
            yield b'p' + bad_files.state(extra)


READERS = {
    'archive': (lambda: read_archive, archive_seeds),
    'folder': (cache_reader, cache_seeds),
    'checkpoint': (lambda: read_checkpoint, checkpoint_seeds),
}


def main(name, corpus, *options):
    warnings.simplefilter('ignore')
    make, seeds = READERS[name]
    read = make()
    corpus = Path(corpus)
    corpus.mkdir(parents=True, exist_ok=True)
    for k, data in enumerate(seeds()):
        (corpus / f'seed-{k}').write_bytes(data)

    def one(data):
        try:
            read(data)
        except InputError:
            pass
        assert not (WORK / 'ran').exists(), '코드가 실행되었다'

    atheris.Setup([sys.argv[0], str(corpus), *options], one)
    atheris.Fuzz()


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    main(*sys.argv[1:])
