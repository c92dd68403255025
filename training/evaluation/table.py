# SPDX-License-Identifier: Apache-2.0
"""The figures in print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.evaluation.intervals import BASELINES, LEAST_BLOCKS

_COLUMNS = (
    *('mse', 'rmse', 'abs_rel', 'abs_rel_aligned', 'delta1', 'delta2', 'delta3', 'edge_f1'),
    *('flicker', 'tae', 'consistency', 'scale_error', 'mse_published', 'coverage'),
)
_COMPARED = ('mse', 'abs_rel', 'flicker', 'tae', 'consistency')
_PER_SCENE = ('mse', 'flicker')

Row = dict[str, Any]


def table(rows: Sequence[Row], *, title: str) -> str:
    """All rows of one source: over everything, against the baselines, and scene by scene."""
    overall = [row for row in rows if row['scene'] == 'all']
    scenes = [row for row in rows if row['scene'] != 'all']
    parts = [title, *_figures(overall)]
    for baseline in BASELINES:
        parts += _against(overall, baseline)
    return '\n'.join([*parts, *_by_scene(scenes, [row['name'] for row in overall])])


def _figures(rows: list[Row]) -> list[str]:
    columns = [column for column in _COLUMNS if any(row.get(column) is not None for row in rows)]
    wide = _first_width(rows)
    widths = [max(9, len(column) + 2) for column in columns]
    lines = [
        f'{"":{wide}} {"frames":>7}'
        + ''.join(f'{column:>{width}}' for column, width in zip(columns, widths, strict=True))
    ]
    for row in rows:
        figures = ''.join(
            f'{_number(row.get(column)):>{width}}'
            for column, width in zip(columns, widths, strict=True)
        )
        lines.append(f'{row["name"]:{wide}} {row["frames"]:7}{figures}')
    for metric in ('tae', 'consistency'):
        floor = rows[0].get(f'truth_{metric}')
        if floor is not None:
            lines.append(f'{metric} of the true depth itself: {floor:.4f}')
    return lines


def _against(rows: list[Row], baseline: str) -> list[str]:
    compared = [row for row in rows if baseline in row['versus'] and row['name'] != 'mean_map']
    base = next((row for row in rows if row['name'] == baseline), None)
    if not compared or base is None:
        return []
    n_blocks = rows[0]['blocks']
    sure = f'95 % interval over {n_blocks} blocks of frames, * where it excludes 0'
    if n_blocks < LEAST_BLOCKS:
        sure = f'no intervals: {n_blocks} blocks of frames are too few'
    columns = [metric for metric in _COMPARED if base.get(metric)]
    wide = _first_width(rows)
    lines = ['', f'against {baseline}, in percent of it; {sure}']
    lines.append(f'{"":{wide}}' + ''.join(f'{metric:>27}' for metric in columns))
    for row in compared:
        cells = [_percent(row['versus'][baseline][metric], base[metric]) for metric in columns]
        lines.append(f'{row["name"]:{wide}}' + ''.join(f'{cell:>27}' for cell in cells))
    return lines


def _by_scene(rows: list[Row], names: list[str]) -> list[str]:
    scenes = list(dict.fromkeys(row['scene'] for row in rows))
    if len(scenes) < 2:
        return []
    figures = {(row['scene'], row['name']): row for row in rows}
    wide = max(len(scene) for scene in scenes)
    width = max(16, *(len(name) + 2 for name in names))
    lines = ['', f'by scene: {" / ".join(_PER_SCENE)}']
    lines.append(f'{"":{wide}} {"frames":>7}' + ''.join(f'{name:>{width}}' for name in names))
    for scene in scenes:
        cells = [
            ' / '.join(_number(figures[scene, name].get(metric)) for metric in _PER_SCENE)
            for name in names
        ]
        frames = figures[scene, names[0]]['frames']
        lines.append(f'{scene:{wide}} {frames:7}' + ''.join(f'{cell:>{width}}' for cell in cells))
    return lines


def _percent(difference: Sequence[float | None], base: float) -> str:
    value, low, high = difference
    if value is None:
        return '-'
    text = f'{100 * value / base:+.1f}'
    if low is None or high is None:
        return text
    excluded = ' *' if low > 0 or high < 0 else '  '
    return f'{text} [{100 * low / base:+.1f}, {100 * high / base:+.1f}]{excluded}'


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'


def _first_width(rows: list[Row]) -> int:
    return max(10, *(len(row['name']) for row in rows))
