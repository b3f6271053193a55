"""학습을 아무 때나 죽이고 이어서 하면, 멈추지 않은 것과 비트까지 같다."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from given import ENV

TORTURE = Path(__file__).with_name('torture.py')


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    told = tmp_path / 'rows.json'
    command = [sys.executable, TORTURE, '--kills', '26', '--seed', '5', '--json', told]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = json.loads(told.read_text())
    happened = Counter(row['fault'] for row in rows if row['happened'])
    assert happened['kill -9 inside a save'] >= 8 and happened['kill -9'] >= 3
    assert happened['SIGTERM, Ctrl+C'] >= 2 and happened['full disk'] in (0, 4)
    assert len({row['recipe'] for row in rows}) == 5
    assert all(row['problems'] == [] for row in rows)
