# SPDX-License-Identifier: Apache-2.0
"""How good metric depth is, and how steady.

All functions take depth in metres, predicted and true, of equal shape (..., H, W). A pixel counts
where its truth is finite and positive. Nothing is aligned in scale or shift: depth is metric or it
is wrong. A prediction of zero or less counts as ``LEAST_DEPTH_M`` where a logarithm is taken.

How steady depth is, is told by three figures: :func:`flicker` compares with the truth,
:func:`temporal_alignment_error` needs the camera's poses, :func:`flow_consistency` the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

LEAST_DEPTH_M = 1e-3
_FLOW_TOLERANCE_PX = 1.0
_JUMPS = (1.05, 1.1, 1.15, 1.2, 1.25)


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


def edge_f1(depth_m: ArrayLike, truth_m: ArrayLike, *, tolerance_px: int = 1) -> float:
    """F1 score of where depth jumps in one frame (H, W), at most ``tolerance_px`` from the truth.

    A jump is a pair of neighbouring pixels of which one is more than 5, 10, 15, 20 or 25 % farther
    than the other; the score is the mean over these, as in Depth Pro (Bochkovskii et al. 2024).
    It knows neither scale nor how large a jump is, and blurred depth has none. NaN where the truth
    has none.
    """
    _valid(depth_m, truth_m)
    truth = np.asarray(truth_m, dtype=np.float64)
    known = np.isfinite(truth) & (truth > 0)
    logs = [
        np.log(np.maximum(np.where(known, values, 1), LEAST_DEPTH_M))
        for values in (np.asarray(depth_m, dtype=np.float64), truth)
    ]
    reach = np.ones((2 * tolerance_px + 1,) * 2, np.uint8)
    scores = []
    for jump in _JUMPS:
        found, there = (_jumps(values, known, math.log(jump)) for values in logs)
        if there.any():
            near_truth, near_found = (cv2.dilate(edges, reach) > 0 for edges in (there, found))
            precision = near_truth[found > 0].mean() if found.any() else 0.0
            recall = near_found[there > 0].mean()
            both = precision + recall
            scores.append(2 * precision * recall / both if both else 0.0)
    return float(np.mean(scores)) if scores else math.nan


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


def temporal_alignment_error(
    previous_m: ArrayLike,
    current_m: ArrayLike,
    *,
    current_from_previous: ArrayLike,
    focal_px: float,
) -> float:
    """TAE of two depth maps (H, W): AbsRel after reprojecting one into the other, both ways.

    ``current_from_previous`` (4, 4), metres, takes points from the previous camera's axes (x
    right, y down, z forward) to the current one's. ``focal_px`` is the focal length of both; the
    principal point is the middle of the map. As in Video Depth Anything (Chen et al. 2025), but a
    ratio, not in percent. Where several points meet in a pixel the nearest one counts, so that
    what the motion hides is left out. NaN where nothing of one map is seen in the other.
    """
    previous = _positive(previous_m)
    current = _positive(current_m)
    if previous.shape != current.shape or previous.ndim != 2:
        raise ValueError(
            f'expected two depth maps of one shape, got {previous.shape}, {current.shape}'
        )
    motion = np.asarray(current_from_previous, dtype=np.float64)
    errors = [
        _reprojection_error(previous, current, motion, focal_px),
        _reprojection_error(current, previous, np.linalg.inv(motion), focal_px),
    ]
    return float(np.mean(errors))


def optical_flow(previous_rgb: np.ndarray, current_rgb: np.ndarray) -> np.ndarray:
    """Where each pixel of the current frame was in the previous one, (H, W, 2) x and y in pixels.

    RGB uint8 (H, W, 3) both; DIS flow (Kroeger et al. 2016). NaN where there and back again misses
    by more than a pixel, or where it leads out of the picture: what was hidden was nowhere.
    """
    previous, current = (
        cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (previous_rgb, current_rgb)
    )
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = current.shape
    back = dis.calc(current, previous, np.zeros((height, width, 2), np.float32))
    forth = dis.calc(previous, current, np.zeros((height, width, 2), np.float32))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    was_at = back + np.stack((x, y), axis=-1).astype(np.float32)
    forth = cv2.remap(forth, was_at[..., 0], was_at[..., 1], cv2.INTER_LINEAR)
    missed = np.linalg.norm(back + forth, axis=-1) > _FLOW_TOLERANCE_PX
    outside = ((was_at < 0) | (was_at > (width - 1, height - 1))).any(axis=-1)
    was_at[missed | outside] = np.nan
    return was_at


def flow_consistency(previous_m: ArrayLike, current_m: ArrayLike, was_at: np.ndarray) -> float:
    """Mean |log(depth now / depth then)| of what two depth maps (H, W) both show.

    ``was_at`` is from :func:`optical_flow`. It holds what the camera's own motion changes as well,
    so compare it with that of the true depth. In the spirit of the optical-flow warping error, OPW
    (Wang et al. 2022, FMNet). NaN where the flow finds nothing again.
    """
    current = _positive(current_m)
    previous = _positive(previous_m).astype(np.float32)
    found = np.isfinite(was_at).all(axis=-1)
    x, y = np.moveaxis(np.nan_to_num(was_at).astype(np.float32), -1, 0)
    then = cv2.remap(previous, x, y, cv2.INTER_NEAREST)  # between near and far lies nothing
    change = np.abs(np.log(current[found] / then[found]))
    change = change[np.isfinite(change)]  # where both depths are known
    return float(change.mean()) if change.size else math.nan


def _reprojection_error(
    source_m: np.ndarray, target_m: np.ndarray, motion: np.ndarray, focal_px: float
) -> float:
    """AbsRel of the source's points seen from the target against the target's own depth."""
    height, width = source_m.shape
    rays = np.stack(
        np.broadcast_arrays(
            (np.arange(width) - (width - 1) / 2) / focal_px,
            (np.arange(height)[:, None] - (height - 1) / 2) / focal_px,
            1.0,
        )
    ).reshape(3, -1)
    points = motion[:3, :3] @ (rays * source_m.ravel()) + motion[:3, 3:]
    points = points[:, points[2] > LEAST_DEPTH_M]  # in front; drops NaN as well
    column, row = np.rint(
        points[:2] / points[2] * focal_px + [[(width - 1) / 2], [(height - 1) / 2]]
    ).astype(np.intp)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, (row * width + column)[inside], points[2, inside])
    target = target_m.ravel()
    seen = np.isfinite(nearest) & np.isfinite(target)
    if not seen.any():
        return math.nan
    return float(np.mean(np.abs(nearest[seen] - target[seen]) / target[seen]))


def _jumps(log_depth: np.ndarray, known: np.ndarray, jump: float) -> np.ndarray:
    """Mark (H, W), uint8, the nearer pixel of each pair of known neighbours that are so apart."""
    marked = np.zeros(known.shape, np.uint8)
    for axis in (0, 1):
        before, after = (
            tuple(part if axis == dim else slice(None) for dim in (0, 1))
            for part in (slice(None, -1), slice(1, None))
        )
        step = log_depth[after] - log_depth[before]
        pair = known[after] & known[before]
        marked[before] |= (pair & (step > jump)).astype(np.uint8)
        marked[after] |= (pair & (step < -jump)).astype(np.uint8)
    return marked


def _positive(depth_m: ArrayLike) -> np.ndarray:
    """In double precision; zero and less is the least depth, what is not finite NaN."""
    depth = np.array(depth_m, dtype=np.float64)
    depth[~np.isfinite(depth)] = np.nan
    return np.maximum(depth, LEAST_DEPTH_M)


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
