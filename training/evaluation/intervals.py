# SPDX-License-Identifier: Apache-2.0
"""Means over frames, and what blocks of frames say of how sure they are.

Neighbouring frames err alike, so that as many single frames say far less than they seem to. What
is drawn anew, with replacement, are blocks of consecutive frames (Künsch 1989), for all methods
the same ones: the interval of a difference knows that both saw the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.evaluation.measure import Measured
from training.evaluation.methods import PER_FRAME

BASELINES = (PER_FRAME, 'control')
LEAST_BLOCKS = 5  # of fewer an interval would say nothing
_DRAWS = 2000
_PERCENT = (2.5, 97.5)


def rows(measured: Measured, *, block: int, seed: int = 0) -> list[dict[str, Any]]:
    """One row per method over all scenes, then one per method and scene.

    ``ci`` holds 95 % intervals over blocks of at most ``block`` frames, ``versus`` the difference
    to other methods as [difference, low, high]; both lack intervals below ``LEAST_BLOCKS`` blocks.
    Metrics are None where nothing was measured.
    """
    if block < 2:
        raise ValueError(f'block: expected at least 2 frames, got {block}')
    scenes = np.array(measured.scenes)
    block_of = blocks(measured.scenes, measured.positions, block)
    scopes = [('all', np.ones(len(scenes), bool))]
    scopes += [(scene, scenes == scene) for scene in dict.fromkeys(measured.scenes)]
    return [
        row for scope, where in scopes for row in _rows_of(measured, scope, where, block_of, seed)
    ]


def blocks(scenes: Sequence[str], positions: Sequence[int], block: int) -> np.ndarray:
    """Number the blocks (N,): one ends with its scene, and before ``block`` frames are over."""
    numbers = []
    number, began = -1, 0
    for i, (scene, position) in enumerate(zip(scenes, positions, strict=True)):
        if i == 0 or scene != scenes[i - 1] or not 0 <= position - began < block:
            number, began = number + 1, position
        numbers.append(number)
    return np.array(numbers, dtype=np.intp)


def _rows_of(
    measured: Measured, scope: str, where: np.ndarray, block_of: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    _, block_of = np.unique(block_of[where], return_inverse=True)
    n_blocks = int(block_of.max()) + 1
    draws = np.random.default_rng(seed).multinomial(
        n_blocks, np.full(n_blocks, 1 / n_blocks), size=_DRAWS
    )
    means: dict[str, dict[str, float]] = {}
    drawn: dict[str, dict[str, np.ndarray]] = {}
    for name in measured.methods:
        means[name], drawn[name] = {}, {}
        for metric in measured.values[name]:
            values = measured.array(name, metric)[where]
            known = np.isfinite(values)
            total = np.bincount(block_of, np.where(known, values, 0), n_blocks)
            count = np.bincount(block_of, known, n_blocks)
            means[name][metric] = _ratio(total.sum(), count.sum())
            drawn[name][metric] = _ratio(draws @ total, draws @ count)
        means[name]['rmse'] = means[name]['mse'] ** 0.5
        drawn[name]['rmse'] = drawn[name]['mse'] ** 0.5

    enough = n_blocks >= LEAST_BLOCKS
    truth = {
        f'truth_{metric}': _plain(np.nanmean(np.array(values)[where]))
        for metric, values in measured.truth.items()
        if np.isfinite(np.array(values)[where]).any()
    }
    return [
        {
            'name': name,
            'scene': scope,
            'frames': int(where.sum()),
            'blocks': n_blocks,
            **{metric: _plain(mean) for metric, mean in means[name].items()},
            **truth,
            'ci': {metric: _interval(drawn[name][metric]) for metric in means[name] if enough},
            'versus': {
                baseline: {
                    metric: [
                        _plain(means[name][metric] - means[baseline][metric]),
                        *_interval(drawn[name][metric] - drawn[baseline][metric], enough),
                    ]
                    for metric in means[name]
                }
                for baseline in BASELINES
                if baseline in measured.methods and baseline != name
            },
        }
        for name in measured.methods
    ]


def _ratio(total: Any, count: Any) -> Any:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)[()]


def _interval(draws: np.ndarray, enough: bool = True) -> list[float | None]:
    if not enough or not np.isfinite(draws).any():
        return [None, None]
    return [_plain(value) for value in np.nanpercentile(draws, _PERCENT)]


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
