"""`tests/torture.py`가 남긴 기록의 표. 03장과 `parts/resume`에 그대로 실린다."""

import statistics

NAMES = {
    'kill -9': '아무 때나 `kill -9`',
    'kill -9 inside a save': '저장하는 순간에 `kill -9`',
    'SIGTERM, Ctrl+C': 'SIGTERM이나 Ctrl+C',
    'full disk': '디스크가 가득 참',
}


def table(rows):
    "일마다 해 본 횟수, 같은 결과가 나온 횟수, 다시 배워야 하는 초"
    head = '| 무엇을 했나 | 횟수 | 같은 결과 | 잃은 시간, 중앙값 / 가장 긴 것 |'
    lines = [head, '|---|---|---|---|']
    for fault, name in NAMES.items():
        tried = [row for row in rows if row['fault'] == fault and row['happened']]
        good = sum(not row['problems'] for row in tried)
        lost = [row['lost'] for row in tried if row['lost'] is not None]
        told = f'{statistics.median(lost):.2f}초 / {max(lost):.2f}초' if lost else '-'
        lines.append(f'| {name} | {len(tried)} | {good} | {told} |')
    return '\n'.join(lines)
