# SPDX-License-Identifier: Apache-2.0
"""How much of what a wrong scale costs is saved by anchors, scene by scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.evaluation.measure import Measured

_NEEDY = 0.05  # of AbsRel that the best single scale would save: a frame that needs an anchor
_TENTH = 0.1  # of the picture that is floor: enough to be measured


def gaps(measured: Measured) -> list[dict[str, Any]]:
    """One row for each anchored method over all scenes, then for each in each scene.

    ``closed`` is the share of the gap between depth without anchors and with the best single scale
    of each frame, over the frames where that gap is ``_NEEDY`` or more. ``scale_p50`` and
    ``scale_p95`` are of the scale error where a tenth of the picture is floor. None where there is
    nothing of the kind.
    """
    scenes = np.array(measured.scenes)
    scopes = [('all', np.ones(len(scenes), bool))]
    scopes += [(scene, scenes == scene) for scene in dict.fromkeys(measured.scenes)]
    return [
        _row(measured, way, scope, where) for scope, where in scopes for way in measured.anchored
    ]


def _row(measured: Measured, way: str, scope: str, where: np.ndarray) -> dict[str, Any]:
    def of(name: str, metric: str) -> np.ndarray:
        return measured.array(name, metric)[where]

    without, best = (of(measured.unanchored, name) for name in ('abs_rel', 'abs_rel_aligned'))
    anchored, error = of(way, 'abs_rel'), of(way, 'scale_error')
    needy = without - best >= _NEEDY
    floor = np.array(measured.floor_share)[where] >= _TENTH
    closed = (
        (without - anchored)[needy].sum() / (without - best)[needy].sum() if needy.any() else None
    )
    p50, p95 = np.percentile(error[floor], (50, 95)) if floor.any() else (None, None)
    return {
        'name': way,
        'scene': scope,
        'frames': int(where.sum()),
        'needy': int(needy.sum()),
        'closed': closed,
        'abs_rel_best': float(np.nanmean(best)),
        'abs_rel_without': float(np.nanmean(without)),
        'abs_rel': float(np.nanmean(anchored)),
        'flicker_without': float(np.nanmean(of(measured.unanchored, 'flicker'))),
        'flicker': float(np.nanmean(of(way, 'flicker'))),
        'with_floor': int(floor.sum()),
        'scale_p50': p50,
        'scale_p95': p95,
    }


def gap_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in print."""
    columns = {
        'best': 'abs_rel_best',
        'without': 'abs_rel_without',
        'anchored': 'abs_rel',
        'closed': 'closed',
        'flicker': 'flicker_without',
        'anchored ': 'flicker',
        'scale p50': 'scale_p50',
        'p95': 'scale_p95',
    }
    wide = max(len(row['scene']) for row in rows)
    lines = [
        f'anchored; closed: of the gap to the best single scale where that is {_NEEDY} of AbsRel',
        'or more (needy); scale error where a tenth of the picture is floor',
        f'{"":{wide}} {"":10} {"frames":>6} {"needy":>6} {"floor":>6}'
        + ''.join(f'{title:>10}' for title in columns),
    ]
    for row in rows:
        figures = ''.join(f'{_number(row[key]):>10}' for key in columns.values())
        counts = f'{row["frames"]:6} {row["needy"]:6} {row["with_floor"]:6}'
        lines.append(f'{row["scene"]:{wide}} {row["name"]:10} {counts}{figures}')
    return '\n'.join(lines)


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'
