"""일부러 망가뜨린 파일들과, 그것을 하나씩 읽어 보는 프로세스.

`python bad_files.py FOLDER`는 파일마다 fork해서 읽고, 결과를 JSON 한 줄로 적는다.
파일 하나가 프로세스를 죽여도 다음 것을 읽는다.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import signal
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
ROWS = 2  # 배치 하나의 이미지
FOLDER = 'cifar-10-batches-py'
NAMES = [*(f'data_batch_{k}' for k in range(1, 6)), 'test_batch', 'batches.meta']
PIXELS = np.arange(ROWS * 3072, dtype=np.uint32).astype(np.uint8).reshape(ROWS, 3072)


class Payload:
    "읽는 순간 `command`를 실행하는 것"

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def touch(at):
    return Payload(f'touch {at / "ran"}')


# 온전한 파일


def batch(protocol=4, **changes):
    found = {'batch_label': 'b', 'labels': [3, 9], 'data': PIXELS}
    found['filenames'] = ['a.png', 'b.png']
    return pickle.dumps({**found, **changes}, protocol=protocol)


def python2_batch(data=PIXELS, labels=(3, 9)):
    "Python 2의 cPickle이 쓴 공식 파일과 같은 명령으로 적은 배치"
    pixels, classes = data.tobytes(), b''.join(b'K%c' % label for label in labels)
    size = b'M' + struct.pack('<H', len(data))
    return b''.join(
        [
            b'\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03',
            b'U\x06labelsq\x04]q\x05(' + classes + b'eU\x04dataq\x06',
            b'cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08',
            b'K\x00\x85U\x01b\x87Rq\x09(K\x01' + size + b'M\x00\x0c\x86',
            b'cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNN',
            b'J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T',
            struct.pack('<i', len(pixels)) + pixels,
            b'tbU\x09filenamesq\x0c]q\x0d(U\x05a.pngq\x0eU\x05b.pngq\x0feu.',
        ]
    )


def member(name, data, **changes):
    "tar의 머리말과 내용. `changes`는 `TarInfo`의 속성"
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def members(**changes):
    contents = {name: batch() for name in NAMES} | changes
    return {name: member(f'{FOLDER}/{name}', data) for name, data in contents.items()}


def packed(parts, level=1):
    blocks = list(parts.values()) if isinstance(parts, dict) else parts
    return gzip.compress(b''.join(blocks) + bytes(1024), level, mtime=0)


def with_batch(data):
    return packed(members(data_batch_2=data))


# 망가진 압축 파일


def spoil(data, at, mask=0x10):
    spoiled = bytearray(data)
    spoiled[at] ^= mask
    return bytes(spoiled)


def gzip_faults():
    good = packed(members())
    yield 'empty', b''
    yield 'one-byte', b'\x1f'
    yield 'text', b'<html>404 Not Found</html>'
    yield 'gzip-header-only', good[:10]
    for part in (4, 2):
        yield f'cut-1-{part}', good[: len(good) // part]
    yield 'cut-checksum', good[:-8]
    yield 'cut-length', good[:-4]
    yield 'wrong-checksum', spoil(good, -8)
    yield 'wrong-length', spoil(good, -1)
    for part in (3, 5, 7, 9):
        yield f'flipped-1-{part}', spoil(good, len(good) // part)
    yield 'nothing-inside', gzip.compress(b'')
    yield 'zeros-inside', gzip.compress(bytes(10240))
    yield 'reserved-flags', spoil(good, 3, 0xE0)
    yield 'endless-name', b'\x1f\x8b\x08\x08' + bytes(6) + b'A' * 1_000_000
    yield 'gzip-in-gzip', gzip.compress(good)
    yield 'xz', lzma.compress(gzip.decompress(good))
    yield 'bz2', bz2.compress(gzip.decompress(good))
    yield 'plain-tar', gzip.decompress(good)
    blocks = list(members().values())
    yield 'two-streams', packed(blocks[:4]) + packed(blocks[4:])


def bomb(head, millions=400):
    "`head` 뒤에 0을 `millions` MB 이은 것"
    packer = zlib.compressobj(1, wbits=31)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + again * millions + packer.flush()


def header(name, size, kind=b'0', field=None):
    block = bytearray(member(name, b'', size=size % 8**11, type=kind)[:512])
    if field is not None:
        block[124:136] = field
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block)
    return bytes(block)


def tar_faults():
    good, name = members(), f'{FOLDER}/data_batch_2'
    rest = [block for key, block in good.items() if key != 'data_batch_2']
    data = batch()
    yield 'bomb', bomb(header('readme.html', 8**11 - 1))
    yield 'bomb-long-name', bomb(header('././@LongLink', 8**11 - 1, b'L'))
    yield 'bomb-pax', bomb(header('pax', 8**11 - 1, b'x'))
    yield 'bomb-member', bomb(header(name, 8**11 - 1))
    yield 'member-of-60-MB', bomb(header(name, 60_000_000), 60)
    yield 'pax-cut', packed([header('pax', 2**30, b'x')])
    yield 'global-pax-cut', packed([header('pax', 2**30, b'g'), *rest])
    yield 'long-name-cut', packed([header('././@LongLink', 2**30, b'L'), *rest])
    yield 'wrong-sum', packed([spoil(good['data_batch_2'], 0), *rest])
    for what, field in {
        'text': b'sizeless\0\0\0\0',
        'signed': b'-0000000100\0',
        'underscores': b'1_0_0_0_0_0\0',
        'empty': bytes(12),
        'negative-256': b'\xff' * 12,
        'huge-256': b'\x80\x00' + b'\x7f' * 10,
    }.items():
        yield f'size-{what}', packed([header(name, 0, field=field) + data, *rest])
    yield 'size-of-8-GB', packed([header(name, 8**11 - 1) + data, *rest])
    for what, size in {'more': len(data) + 600, 'less': 700, 'none': 0}.items():
        lying = header(name, size) + data + bytes(-len(data) % 512)
        yield f'size-{what}', packed([lying, *rest])
    for what, kind in {
        'hardlink': b'1',
        'symlink': b'2',
        'character-device': b'3',
        'block-device': b'4',
        'folder': b'5',
        'fifo': b'6',
        'sparse': b'S',
    }.items():
        link = member(name, b'', type=kind, linkname='../../../etc/passwd')
        yield f'a-{what}', packed([link, *rest])
    yield 'twice', packed([*rest, good['data_batch_2'], good['data_batch_2']])
    for missing in NAMES:
        kept = [block for key, block in good.items() if key != missing]
        yield f'without-{missing}', packed(kept)
    for what, path in {
        'outside': f'../{name}',
        'absolute': f'/{name}',
        'dots': f'{FOLDER}/../{name}',
        'deeper': f'{FOLDER}/deeper/data_batch_2',
        'backslash': f'{FOLDER}\\data_batch_2',
    }.items():
        yield f'path-{what}', packed([member(path, data), *rest])
    yield 'tar-cut-in-header', gzip.compress(b''.join(rest) + rest[0][:300])
    yield 'tar-cut-in-member', gzip.compress(b''.join(rest)[:-600])


# 망가진 배치


def text(value):
    return b'X' + struct.pack('<I', len(value)) + value.encode()


def array(shape, kind=b'u1', content=b'C\x00', order=b'\x89'):
    "NumPy 배열을 만드는 명령"
    parts = b''.join(b'J' + struct.pack('<i', size) for size in shape)
    return (
        b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R'
        b'(K\x01(' + parts + b'tcnumpy\ndtype\nC\x02' + kind + b'K\x00K\x01\x87R'
        b'(K\x03C\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
        + order
        + content
        + b'tb'
    )


def pickled(data=None, labels=b'](K\x03K\x09e', extra=b''):
    pixels = b'B' + struct.pack('<I', PIXELS.nbytes) + PIXELS.tobytes()
    data = array(PIXELS.shape, content=pixels) if data is None else data
    pairs = text('data') + data + text('labels') + labels + extra
    return b'\x80\x03}(' + pairs + b'u.'


def batch_faults(at):
    for protocol in (0, 2, 4):
        yield f'runs-code-{protocol}', batch(protocol, extra=touch(at))
        yield f'runs-code-as-data-{protocol}', batch(protocol, data=touch(at))
    code = f'open({str(at / "ran")!r}, "w")'
    for name in ('eval', 'exec'):
        call = f'cbuiltins\n{name}\n'.encode() + text(code) + b'\x85R'
        yield f'calls-{name}', pickled(extra=text('x') + call)
    old_call = f"(S'touch {at / 'ran'}'\nios\nsystem\n".encode()
    yield 'old-instance', pickled(extra=text('x') + old_call)
    yield 'new-object', pickled(extra=text('x') + b'cbuiltins\nbytearray\n)\x81')
    yield 'extension', pickled(extra=text('x') + b'\x82\x01')
    yield 'persistent', pickled(extra=text('x') + b'K\x01Q')
    yield 'out-of-band-buffer', pickled(extra=text('x') + b'\x97')
    yield 'calls-loads', pickled(data=b'c_pickle\nloads\n' + b'C\x00\x85R')
    yield 'calls-memmap', pickled(data=b'cnumpy\nmemmap\n' + text('x') + b'\x85R')
    encode = b'c_codecs\nencode\n' + text('x') + text('hex') + b'\x86R'
    yield 'encodes-hex', pickled(extra=text('x') + encode)
    yield 'object-array', batch(data=np.array([[None]], dtype=object))
    for kind in ('float32', 'int8', '>u2', 'bool', 'U3'):
        yield f'pixels-{kind.strip(">")}', batch(data=PIXELS.astype(kind))
    yield 'fortran', batch(data=np.asfortranarray(PIXELS))
    yield 'fortran-flag', pickled(array((2, 3072), content=b'C\x00', order=b'\x88'))
    for shape in ((2, 3071), (2, 32, 32, 3), (6144,), (1, 6144)):
        yield f'shape-{len(shape)}-{shape[-1]}', batch(data=np.zeros(shape, np.uint8))
    yield 'a-billion-rows', pickled(array((10**9, 3072)))
    yield 'negative-rows', pickled(array((-2, 3072)))
    yield 'text-shape', pickled(array(()).replace(b'(t', text('ab') + b'\x85', 1))
    yield 'few-pixels', pickled(array((2, 3072), content=b'C\x64' + bytes(100)))
    yield 'no-rows', batch(data=PIXELS[:0], labels=[])
    yield 'many-rows', batch(data=np.repeat(PIXELS, 50, 0), labels=[1] * 100)
    yield 'another-number-of-rows', batch(data=PIXELS[:1], labels=[1])
    wide = array((2, 3072), content=text('가' * 3072))
    yield 'pixels-beyond-a-byte', pickled(wide)
    broken = b'X' + struct.pack('<I', 6144) + b'\xff' * 6144
    yield 'pixels-not-text', pickled(array((2, 3072), content=broken))
    yield 'pixels-as-list', batch(data=PIXELS.tolist())
    for what, labels in {
        'few': [1],
        'many': [1, 2, 3],
        'ten': [1, 10],
        'negative': [1, -1],
        'float': [1, 2.0],
        'bool': [True, False],
        'text': ['1', '2'],
        'none': None,
        'tuple': (1, 2),
        'huge': [1, 2**62],
    }.items():
        yield f'labels-{what}', batch(labels=labels)
    yield 'no-data', pickle.dumps({'labels': [1, 2]})
    yield 'no-labels', pickle.dumps({'data': PIXELS})
    yield 'not-a-dict', pickle.dumps([1, 2])
    yield 'no-pickle', b''
    yield 'only-text', b'not a pickle'
    yield 'cut', batch()[:-2000]
    yield 'no-stop', batch()[:-1]
    yield from machine_faults()


def machine_faults():
    "pickle을 읽는 기계를 노린 것"
    key = text('x')
    many = 1_000_000
    yield 'tuple-in-tuple', pickled(extra=key + b'N' + b'\x85' * many)
    yield 'list-in-list', pickled(extra=key + b']' * many + b'a' * (many - 1))
    yield 'deep-key', pickled(extra=b'N' + b'\x85' * 5000 + b'N')
    yield 'tuple-key', pickled(extra=b'K\x01\x85N')
    yield 'number-key', pickled(extra=b'K\x01N')
    yield 'odd-items', pickled(extra=key)
    doubling = b']q\x00' + b'(h\x00h\x00tq\x00' * 60
    yield 'doubling', pickled(extra=key + doubling + b'N')
    laughs = b''.join(b'](' + b'h\x00' * 10 + b'eq\x00' for _ in range(40))
    yield 'billion-laughs', pickled(extra=key + b'K\x01q\x00' + laughs + b'N')
    yield 'million-marks', pickled(extra=b'(' * many)
    yield 'million-values', pickled(extra=key + b']' * many)
    yield 'million-numbers', pickled(labels=b'](' + b'K\x01' * many + b'e')
    yield 'far-memo', pickled(extra=key + b'Nr\xff\xff\xff\xffj\xfe\xff\xff\xff')
    yield 'no-memo', pickled(extra=key + b'h\xc8')
    yield 'underflow', b'\x80\x02' + b'\x86.'
    yield 'no-mark', b'\x80\x02}u.'
    yield 'build-nothing', b'\x80\x02}b.'
    yield 'reduce-nothing', b'\x80\x02R.'
    yield 'append-to-number', b'\x80\x02K\x01K\x01a.'
    yield 'pop', pickled(extra=key + b'N0')
    yield 'string-of-2-GB', b'\x80\x02}(' + b'T\xff\xff\xff\x7fabc'
    yield 'string-below-zero', b'\x80\x02}(' + b'T\xff\xff\xff\xffabc'
    yield 'text-of-4-GB', b'\x80\x02}(' + b'X\xff\xff\xff\xffabc'
    yield 'bytes-of-4-GB', b'\x80\x03}(' + b'B\xff\xff\xff\xffabc'
    yield 'bytearray-of-8-EB', b'\x80\x05\x96' + b'\xff' * 7 + b'\x7fabc'
    yield 'endless-global', b'\x80\x02c' + b'a' * 100_000
    yield 'long-name', pickled(extra=key + text('a' * 200) * 2 + b'\x93')
    yield 'number-as-name', pickled(extra=key + b'K\x01K\x01\x93')


def bad_archives(at):
    yield from gzip_faults()
    yield from tar_faults()
    for name, data in batch_faults(at):
        yield f'batch-{name}', with_batch(data)


# 망가진 캐시


def npy(value):
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=True)
    return buffer.getvalue()


def zipped(parts, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as made:
        for name, data in parts.items():
            made.writestr(name, data)
    return buffer.getvalue()


def bad_caches(arrays, at):
    "`arrays`는 온전한 캐시에 든 배열"
    good = {f'{name}.npy': npy(value) for name, value in arrays.items()}
    count = len(arrays['labels'])

    def changed(**values):
        return zipped({**good, **{f'{name}.npy': npy(v) for name, v in values.items()}})

    def claimed(name, old, new):
        data = good[f'{name}.npy'].replace(old, new.ljust(len(old)), 1)
        return zipped({**good, f'{name}.npy': data})

    whole = zipped(good)
    yield 'empty', b''
    yield 'magic', b'PK\x03\x04' + bytes(60)
    yield 'cut', whole[:-40]
    yield 'half', whole[: len(whole) // 2]
    yield 'flipped-pixel', spoil(whole, whole.index(b'NUMPY') + 1000)
    yield 'comment', whole + b'x'
    yield 'compressed', zipped(good, zipfile.ZIP_DEFLATED)
    bomb = npy(np.zeros((60, 1000, 1000), np.uint8))
    spread = {**good, 'images.npy': bomb}
    yield 'bomb', zipped(spread, zipfile.ZIP_DEFLATED)
    shape = str(arrays['images'].shape).encode()
    yield 'huge-shape', claimed('images', shape, b'(9999999, 9999)')
    yield 'negative-shape', claimed('images', shape, b'(-1, 3, 32, 32)')
    yield 'deep-header', claimed('images', b"{'descr': '|u1'", b'(((((((((((((((')
    yield 'object-images', changed(images=np.array([touch(at)] * count, dtype=object))
    yield 'object-bad', changed(bad=np.array([touch(at)], dtype=object))
    yield 'float-images', changed(images=arrays['images'].astype(np.float32))
    yield 'other-size', changed(images=arrays['images'][:, :, :16, :16])
    yield 'fortran', changed(images=np.asfortranarray(arrays['images']))
    yield 'float-labels', changed(labels=arrays['labels'].astype(float))
    yield 'narrow-labels', changed(labels=arrays['labels'].astype(np.int32))
    yield 'label-too-high', changed(labels=arrays['labels'] + 5)
    yield 'label-below-zero', changed(labels=arrays['labels'] - 5)
    yield 'labels-in-a-column', changed(labels=arrays['labels'][:, None])
    twice = {name: np.concatenate([v, v]) for name, v in arrays.items() if v.ndim}
    yield 'more-pictures-than-files', changed(**twice)
    few = {name: v[:1] for name, v in arrays.items() if v.ndim}
    yield 'fewer-pictures-than-files', changed(**few)
    yield 'wide-alarm', changed(**{**few, 'bad': np.array(['x' * 20000] * (count - 1))})
    strange = np.frombuffer(b'\xff' * 4, '<U1').repeat(count - 1)
    yield 'not-unicode', changed(**{**few, 'bad': strange})
    odd = arrays['is_train'].view(np.uint8) + 6
    yield 'neither-true-nor-false', changed(is_train=odd.view(bool))
    yield 'another-key', changed(key=np.array('0' * 64))
    yield 'key-as-number', changed(key=np.array(3))
    for name in arrays:
        kept = {key: data for key, data in good.items() if key != f'{name}.npy'}
        yield f'without-{name}', zipped(kept)
    yield 'extra', zipped({**good, 'extra.npy': b''})
    yield 'no-arrays', zipped(dict.fromkeys(good, b''))
    yield from directory_faults(whole)


def directory_faults(whole):
    "zip의 목차가 거짓말을 하는 것"
    end = whole.rindex(b'PK\x05\x06')
    start = whole.index(b'PK\x01\x02')
    entry = start + 46

    def put(at, kind, *values):
        data = bytearray(whole)
        struct.pack_into(kind, data, at, *values)
        return bytes(data)

    yield 'size-lies-up', put(start + 20, '<LL', 2**31, 2**31)
    yield 'size-lies-down', put(start + 20, '<LL', 7, 7)
    yield 'offset-lies', put(start + 42, '<L', 2**31)
    yield 'locked', put(start + 8, '<H', 1)
    yield 'another-method', put(start + 10, '<H', 99)
    yield 'another-checksum', put(start + 16, '<L', 1)
    yield 'directory-elsewhere', put(end + 16, '<L', 0)
    yield 'directory-too-large', put(end + 12, '<L', 2**31)
    second = whole.index(b'PK\x01\x02', entry)
    yield (
        'overlapping',
        put(second + 42, '<L', *struct.unpack_from('<L', whole, start + 42)),
    )
    many = zipped({f'{k}/{"x" * 60}': b'' for k in range(40_000)})
    yield 'four-megabyte-directory', many
    yield 'offset-of-16-EB', far_entry()


def far_entry():
    "64비트로 적은 자리가 파일의 어떤 자리보다도 먼 항목"
    far, buffer = zipfile.ZipInfo('far'), io.BytesIO()
    far.extra = struct.pack('<HHQ', 1, 8, 2**64 - 1)
    with zipfile.ZipFile(buffer, 'w') as made:
        made.writestr(far, b'x')
    data = bytearray(buffer.getvalue())
    struct.pack_into('<L', data, data.index(b'PK\x01\x02') + 42, 2**32 - 1)
    return bytes(data)


# 망가진 체크포인트


def checkpoint(content, blob=bytes(16), folder='x'):
    "`data.pkl`이 `content`인 체크포인트"
    parts = {'data.pkl': content, 'byteorder': b'little', 'data/0': blob}
    parts['version'] = b'3\n'
    return zipped({f'{folder}/{name}': data for name, data in parts.items()})


def call(module, name, arguments):
    return f'c{module}\n{name}\n'.encode() + arguments + b'R'


STORAGE = b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text('0') + text('cpu')
STORAGE += b'K\x04tQ'


def tensor(size, stride):
    hooks = call('collections', 'OrderedDict', b')')
    inside = STORAGE + b'K\x00' + size + stride + b'\x89' + hooks
    return call('torch._utils', '_rebuild_tensor_v2', b'(' + inside + b't')


def state(extra=b''):
    whole = tensor(b'K\x04\x85', b'K\x01\x85')
    return (
        b'\x80\x02}('
        + text('state_dict')
        + b'}'
        + text('w')
        + whole
        + b's'
        + extra
        + b'u.'
    )


def bad_pickles(at):
    huge = b'J\xff\xff\xff\x7f'
    key = text('x')
    wide = tensor(huge + b'\x85', b'K\x00\x85')
    for module, name in {
        '__builtin__': 'bytearray',
        'torch': 'Tensor',
        'torch.storage': 'UntypedStorage',
        'torch ': 'FloatStorage',
    }.items():
        yield f'allocates-{name}', key + call(module.strip(), name, huge + b'\x85')
    new = b'ctorch\nTensor\n' + huge + b'\x85\x81'
    yield 'allocates-new', key + new
    yield 'set-of-a-tensor', key + call('__builtin__', 'set', wide + b'\x85')
    yield 'size-of-a-tensor', key + call('torch', 'Size', wide + b'\x85')
    yield 'arguments-from-a-tensor', key + call('torch', 'Size', wide)
    yield (
        'moves-a-tensor',
        key
        + call(
            'torch._utils',
            '_rebuild_device_tensor_from_cpu_tensor',
            b'(' + wide + b'ctorch\nfloat64\n' + text('cpu') + b'\x89t',
        ),
    )
    sparse = (
        b'(ctorch.serialization\n_get_layout\n' + text('torch.sparse_coo') + b'\x85R'
    )
    sparse += b'(' + wide + wide + b'K\x04\x85tt'
    yield 'sparse', key + call('torch._utils', '_rebuild_sparse_tensor', sparse)
    hexed = call('_codecs', 'encode', text('x' * 100) + text('latin1') + b'\x86')
    for _ in range(40):
        hexed = call('_codecs', 'encode', hexed + text('hex') + b'\x86')
    yield 'hex-of-hex', key + hexed
    yield 'deep-key', b'N' + b'\x85' * 400_000 + b'N'
    yield 'deep-storage-key', key + STORAGE.replace(text('0'), b'N' + b'\x85' * 300_000)
    yield 'doubling-key', b'Nq\x01' + b'h\x01h\x01\x86q\x01' * 60 + b'N'
    yield 'million-dicts', key + b'](' + b'}' * 1_000_000 + b'e'
    more = b'q\x02' + b'h\x02)R' * 400_000
    yield 'million-ordered', key + b'](ccollections\nOrderedDict\n' + more + b'e'
    yield 'runs-code', key + call('os', 'system', text(f'touch {at / "ran"}') + b'\x85')
    yield 'runs-posix', key + call('posix', 'system', text('true') + b'\x85')
    yield 'builds-a-tensor', key + tensor(b'K\x04\x85', b'K\x01\x85') + b'}b'
    yield 'no-record', key + STORAGE.replace(text('0'), text('7'))
    yield 'no-storage-type', key + STORAGE.replace(b'FloatStorage', b'float32')
    yield (
        'long-offset',
        key
        + tensor(b'K\x04\x85', b'K\x01\x85').replace(b'QK\x00', b'QJ\xff\xff\xff\x7f'),
    )
    yield 'list-key', b']N'
    yield 'protocol-4', key + b'\x80\x04N'
    yield 'far-memo', key + b'j\xff\xff\xff\xff'
    yield 'underflow', b'\x87'
    yield 'not-utf-8', b'X\x02\x00\x00\x00\xff\xffN'
    yield 'cut-text', key + b'X\xff\xff\xff\xff'


def bad_checkpoints(at, good):
    "`good`은 `torch.save`가 쓴 온전한 체크포인트"
    yield 'empty', b''
    yield 'text', b'<html>404 Not Found</html>'
    for part in (9, 2):
        yield f'cut-1-{part}', good[: len(good) // part]
    yield 'cut-end', good[:-1]
    yield 'longer', good + b'x'
    with zipfile.ZipFile(io.BytesIO(good)) as opened:
        parts = {name: opened.read(name) for name in opened.namelist()}
        places = {i.filename: i.header_offset + 64 for i in opened.infolist()}
    for name in parts:
        data = parts[name]
        at_data = good.index(data, places[name] - 34)
        yield (
            f'flipped-{name.split("/", 1)[1]}',
            spoil(good, at_data + len(data) // 2, 1),
        )
    yield 'compressed', zipped(parts, zipfile.ZIP_DEFLATED)
    zeros = {**parts, 'good/data/0': bytes(60_000_000)}
    yield 'bomb', zipped(zeros, zipfile.ZIP_DEFLATED)
    yield 'without-pickle', zipped({k: v for k, v in parts.items() if 'pkl' not in k})
    other = {name.replace('data.pkl', 'DATA.PKL'): data for name, data in parts.items()}
    yield 'two-cases', zipped({**other, **parts})
    yield 'other-cases', zipped(other)
    yield 'korean-name', zipped({**parts, 'good/가': b''})
    yield 'large-version', zipped({**parts, 'good/version': bytes(20_000_000)})
    yield 'torchscript', zipped({**parts, 'good/constants.pkl': parts['good/data.pkl']})
    for name, data in directory_faults(zipped(parts)):
        yield name, data
    yield 'not-a-state', checkpoint(b'\x80\x02](K\x01e.')
    for name, extra in bad_pickles(at):
        yield f'pickle-{name}', checkpoint(state(extra))
    wide = state().replace(b'K\x04tQ', b'M\x00\x10tQ')
    yield 'pickle-record-size', checkpoint(wide)
    yield 'no-stop', checkpoint(state()[:-1])
    yield 'no-pickle', checkpoint(b'')
    head = b''.join(
        pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {'x': 1})
    )
    yield 'old-cut', head
    for name, extra in bad_pickles(at):
        if name.startswith(('allocates', 'runs', 'deep', 'hex')):
            yield f'old-{name}', head + state(extra) + pickle.dumps([], 2)
    yield 'old-tar', member('storages', bytes(100)) + bytes(1024)


# 읽어 보기


def peak():
    """이 프로세스가 이제까지 쓴 가장 큰 메모리, MB

    `ru_maxrss`는 exec하기 전의, 곧 부모의 것까지 세므로 쓰지 않는다.
    """
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 1024


def report(read):
    "fork한 프로세스에서 `read()`를 부른 결과"
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.close(out)
        before = peak()
        signal.alarm(30)
        try:
            kind, message = read()
        except BaseException as error:  # 무엇이 나오는지 보려는 것이다.
            kind, message = type(error).__name__, str(error)[:1000]
        found = {'kind': kind, 'message': message, 'peak': peak() - before}
        os.write(into, json.dumps(found).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out, 'rb') as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {'kind': f'status {status}', 'message': ''}


def read_cache(photos, expected):
    "망가진 캐시를 두고도 사진에서 읽은 것과 같으면 'same'"
    from cifar_lit.parts.folder import folder_pictures

    found = folder_pictures(photos)
    for split in expected:
        for theirs, ours in zip(found[split], expected[split]):
            if not ours.equal(theirs):
                return 'other', ''
    return 'same', ''


def run_archives(at):
    from cifar_lit.parts.archive import read_archive

    for name, data in bad_archives(at):
        path = at / 'in/cifar-10-python.tar.gz'
        path.write_bytes(data)
        yield (
            f'archive-{name}',
            report(lambda path=path: read_archive(path, 'train', ROWS)),
        )


def run_caches(at):
    from PIL import Image

    from cifar_lit.parts.folder import folder_pictures

    photos = at / 'in/photos'
    for k, name in enumerate('abcd'):
        for split in ('train', 'test'):
            target = photos / split / 'uv'[k % 2]
            target.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (32, 32), (60 * k, 9, 9)).save(target / f'{name}.png')
    expected = folder_pictures(photos)
    (cache,) = (photos / '.cifar_lit').iterdir()
    with np.load(cache) as saved:
        arrays = dict(saved)
    for name, data in bad_caches(arrays, at):
        cache.write_bytes(data)
        found = report(lambda: read_cache(photos, expected))
        found['rebuilt'] = cache.read_bytes() != data
        yield f'cache-{name}', found


def read_twice(path):
    "확인만 하고, 읽는다. 확인에서 걸렸으면 알린다."
    from cifar_lit.parts.checkpoints import read_checkpoint, verify_checkpoint
    from cifar_lit.parts.files import InputError

    try:
        verify_checkpoint(path)
    except InputError as error:
        verified = str(error)
    else:
        verified = ''
    try:
        return 'read', str(read_checkpoint(path))[:50]
    except InputError as error:
        return 'InputError', f'{error}\n{verified}'


def run_checkpoints(at):
    import torch

    path = at / 'in/good.ckpt'
    torch.save({'state_dict': {'w': torch.arange(64.0)}, 'epoch': 3}, path)
    good = path.read_bytes()
    for name, data in bad_checkpoints(at, good):
        path.write_bytes(data)
        yield f'checkpoint-{name}', report(lambda: read_twice(path))
    path.write_bytes(good)


def main(at):
    (at / 'in').mkdir()
    for run in (run_archives, run_caches, run_checkpoints):
        for name, found in run(at):
            print(json.dumps({'name': name, **found}, ensure_ascii=False), flush=True)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
