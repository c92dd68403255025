# SPDX-License-Identifier: Apache-2.0
"""How good metric depth is, and how steady.

All functions take depth in metres, predicted and true, of equal shape (..., H, W). A pixel counts
where its truth is finite and positive. Nothing is aligned in scale or shift: depth is metric or it
is wrong. A prediction of zero or less counts as ``LEAST_DEPTH_M`` where a logarithm is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

LEAST_DEPTH_M = 1e-3


def mse(depth_m: ArrayLike, truth_m: ArrayLike) -> float:
    """Mean squared error in m²."""
    depth, truth = _valid(depth_m, truth_m)
    return float(np.mean((depth - truth) ** 2))


def rmse(depth_m: ArrayLike, truth_m: ArrayLike) -> float:
    """Root of the mean squared error over all pixels, in metres."""
    return mse(depth_m, truth_m) ** 0.5


def abs_rel(depth_m: ArrayLike, truth_m: ArrayLike) -> float:
    """Mean |error| / truth."""
    depth, truth = _valid(depth_m, truth_m)
    return float(np.mean(np.abs(depth - truth) / truth))


def log10(depth_m: ArrayLike, truth_m: ArrayLike) -> float:
    """Mean |log10(depth / truth)|."""
    depth, truth = _valid(depth_m, truth_m)
    return float(np.mean(np.abs(np.log10(np.maximum(depth, LEAST_DEPTH_M) / truth))))


def delta(depth_m: ArrayLike, truth_m: ArrayLike, *, power: int = 1) -> float:
    """Share of pixels with max(depth / truth, truth / depth) < 1.25 ** power (δ1 to δ3)."""
    depth, truth = _valid(depth_m, truth_m)
    depth = np.maximum(depth, LEAST_DEPTH_M)
    return float(np.mean(np.maximum(depth / truth, truth / depth) < 1.25**power))


def scale_error(depth_m: ArrayLike, truth_m: ArrayLike) -> float:
    """Median of log(depth / truth) over one frame (H, W): 0.1 is 10 % too far."""
    depth, truth = _valid(depth_m, truth_m)
    return float(np.median(np.log(np.maximum(depth, LEAST_DEPTH_M) / truth)))


def flicker(depths_m: Sequence[ArrayLike], truths_m: Sequence[ArrayLike]) -> float:
    """Mean |s_t - s_(t-1)| over consecutive frames, s being their :func:`scale_error`.

    Raises ``ValueError`` for fewer than two frames.
    """
    if len(depths_m) < 2:
        raise ValueError(f'expected at least two consecutive frames, got {len(depths_m)}')
    errors = [scale_error(depth, truth) for depth, truth in zip(depths_m, truths_m, strict=True)]
    return float(np.mean(np.abs(np.diff(errors))))


def _valid(depth_m: ArrayLike, truth_m: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    depth = np.asarray(depth_m, dtype=np.float64)
    truth = np.asarray(truth_m, dtype=np.float64)
    if depth.shape != truth.shape:
        raise ValueError(
            f'expected depth and truth of one shape, got {depth.shape}, {truth.shape}'
        )
    valid = np.isfinite(truth) & (truth > 0)
    if not valid.any():
        raise ValueError('expected at least one pixel with finite, positive true depth, got none')
    return depth[valid], truth[valid]
