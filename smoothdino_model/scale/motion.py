# SPDX-License-Identifier: Apache-2.0
"""The scale of depth from the way that the camera has gone between two pictures.

A point that is seen in both moves on the picture by the turn of the camera, whatever its depth,
and by d / depth, where d is what the way makes of a depth of one metre. With the depth that the
network says, that is linear in the inverse of the scale, and in what odometry is off by: a small
turn and a small way. All are solved for at once, the latter as far as odometry may be off; the
spread of the scale then holds all that is not known of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.measurement import Measurement
from smoothdino_model.scale.tracks import Tracks

_LEAST_WAY_M = 0.005
_NOISE_PX = 0.5  # standard deviation of a track, in the picture that is looked at
_BENT = 0.2  # of the logarithm of depth, as networks have it
# Standard deviations of odometry: of its turn, in radians and of what it turned, and of its way.
_TURN_RAD, _TURN_SHARE = 0.003, 0.03
_WAY_M, _WAY_SHARE = 0.003, 0.03
_MOST_PULL = 5.0  # times as far off: beyond, depth is too bent or it is another's odometry
_MOST_ACROSS, _MOST_TURN = 2.0, 3.0  # standard deviations, without any depth: it is the latter
_LEAST_TRACKS, _LEAST_SHARE = 12, 0.5  # that agree, and of all
_STEPS = 4  # of weighed least squares
_HUBER, _INLIER = 1.5, 3.0  # standard deviations
_USUAL = 1.18  # the median of how many standard deviations two coordinates are off by
# The tracks are a part of a picture that is bent, as for points of a scan; beyond the most, the
# way has told too little.
_LEAST_SPREAD, _OF_SCATTER, _OF_OUTLIERS, _MOST_SPREAD = 0.12, 0.4, 0.3, 0.25
_LEAST_INVERSE = 0.1  # of the scale: beneath, things move against the way
_LEAST_AHEAD = 0.1  # of the depth of a ray that is turned: what is said to be seen from behind


@dataclass(frozen=True, eq=False)
class _Shifts:
    """How N points have moved on the picture, over the focal length, along their way and across.

    ``by_depth`` (N,) is how far, along, were depth right; ``columns`` (2N, 6) how far a turn by
    one radian and a way of one metre would move each, along and then across.
    """

    moved: np.ndarray  # (2N,) along and then across
    by_depth: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True, eq=False)
class _Fit:
    """The inverse of the scale, and its standard deviation over it.

    ``apart`` (N,) tells how many standard deviations each track is off, ``scatter`` how much
    single depths disagree, in the logarithm, and ``pull`` how many times odometry is farther off
    than it should be; ``contradicted`` tells whether the tracks alone speak against it.
    """

    inverse: float
    deviation: float
    apart: np.ndarray
    scatter: float
    pull: float
    contradicted: bool


def motion_scale(
    depth_m: np.ndarray, camera: Intrinsics, tracks: Tracks, current_from_key: np.ndarray
) -> Measurement:
    """Compare depth (H, W) with how tracks have moved while the camera did, by (4, 4) in metres.

    What moves by itself is an outlier. A camera that stands, turns on the spot, or goes straight
    to what it sees learns nothing.
    """
    if depth_m.shape != (camera.height, camera.width):
        raise ValueError(
            f'expected depth of {camera.height, camera.width}, the size of its camera, got '
            f'{depth_m.shape}'
        )
    way_m = float(np.linalg.norm(current_from_key[:3, 3]))
    if way_m < _LEAST_WAY_M:
        return Measurement(why_none='the camera stands, or turns on the spot')
    column, row = np.rint(tracks.are_px).astype(np.intp).T
    depth = depth_m[row, column].astype(np.float64)
    known = np.isfinite(depth) & (depth > 0)
    samples = int(known.sum())
    if samples < _LEAST_TRACKS:
        return Measurement(samples=samples, why_none='too few corners are seen in both pictures')
    was, are = (_at_depth_one(px[known], camera) for px in (tracks.was_px, tracks.are_px))
    shifts = _shifts(was, are, depth[known], current_from_key)
    noise = _NOISE_PX * tracks.step / camera.fx_px
    fit = _fitted(shifts, _odometry_off(current_from_key), noise)
    return _judged(fit, middle_m=float(np.median(depth[known])))


def _judged(fit: _Fit, *, middle_m: float) -> Measurement:
    samples, inliers = fit.apart.size, int((fit.apart < _INLIER).sum())
    if fit.contradicted:
        return Measurement(
            samples=samples,
            why_none='what is seen does not move as odometry says: is the camera where TF or '
            'odometry_pose says, do their clocks agree, and are there clear corners?',
        )
    if fit.pull >= _MOST_PULL:
        return Measurement(samples=samples, why_none='depth is too bent for one scale')
    if inliers < max(_LEAST_TRACKS, _LEAST_SHARE * samples):
        return Measurement(
            samples=samples,
            why_none=f'of {samples} tracks no more than {inliers} agree with one scale',
        )
    spread = math.hypot(
        fit.deviation * max(1.0, float(np.median(fit.apart)) / _USUAL),
        _OF_SCATTER * fit.scatter,
        _OF_OUTLIERS * (1 - inliers / samples),
        _LEAST_SPREAD,
    )
    if spread > _MOST_SPREAD:
        return Measurement(
            samples=samples,
            why_none='the way moves too little on the picture: too short, or straight ahead',
        )
    return Measurement(-math.log(fit.inverse), spread, inliers, samples, middle_m / fit.inverse)


def _at_depth_one(points_px: np.ndarray, camera: Intrinsics) -> np.ndarray:
    return (points_px - (camera.cx_px, camera.cy_px)) / (camera.fx_px, camera.fy_px)


def _odometry_off(current_from_key: np.ndarray) -> np.ndarray:
    """Standard deviations (6,) of the turn in radians, and of the way in metres."""
    cosine = (float(np.trace(current_from_key[:3, :3])) - 1) / 2
    turn_rad = math.acos(min(max(cosine, -1.0), 1.0))
    way_m = float(np.linalg.norm(current_from_key[:3, 3]))
    turn = math.hypot(_TURN_RAD, _TURN_SHARE * turn_rad)
    return np.repeat((turn, math.hypot(_WAY_M, _WAY_SHARE * way_m)), 3)


def _shifts(
    was: np.ndarray, are: np.ndarray, depth: np.ndarray, current_from_key: np.ndarray
) -> _Shifts:
    """Points (N, 2) at depth 1 in both pictures, and their depth (N,) in the second one.

    A point moves from where it would be at infinity, by the turn alone, towards or away from the
    point that the camera goes to, by d / depth exactly.
    """
    turned = was @ current_from_key[:3, :2].T + current_from_key[:3, 2]
    far = turned[:, :2] / np.maximum(turned[:, 2:], _LEAST_AHEAD)
    right, down, ahead = current_from_key[:3, 3]
    d = np.array((right, down)) - far * ahead
    length = np.maximum(np.linalg.norm(d, axis=1), 1e-9)
    along = d / length[:, None]
    across = np.stack((-along[:, 1], along[:, 0]), axis=1)
    x, y = are.T
    one, none = np.ones(len(x)), np.zeros(len(x))
    turn_x, turn_y = (-x * y, 1 + x * x, -y), (-1 - y * y, x * y, x)  # by a turn about each axis
    way_x, way_y = (one / depth, none, -far[:, 0] / depth), (none, one / depth, -far[:, 1] / depth)
    by_x, by_y = np.stack(turn_x + way_x, axis=1), np.stack(turn_y + way_y, axis=1)  # (N, 6)
    axes = np.concatenate((along, across))  # (2N, 2)
    return _Shifts(
        (np.tile(are - far, (2, 1)) * axes).sum(1),
        length / depth,
        np.tile(by_x, (2, 1)) * axes[:, :1] + np.tile(by_y, (2, 1)) * axes[:, 1:],
    )


def _fitted(shifts: _Shifts, off: np.ndarray, noise: float) -> _Fit:
    """Weighed least squares of the inverse of the scale, and of what odometry is off by (6,)."""
    n = len(shifts.by_depth)
    columns = np.zeros((2 * n + 6, 7))
    columns[:n, 0], columns[: 2 * n, 1:] = shifts.by_depth, shifts.columns
    columns[2 * n :, 1:] = np.eye(6)
    wanted = np.concatenate((shifts.moved, np.zeros(6)))
    inverse, pull, weight = 1.0, 1.0, np.ones(n)
    for _ in range(_STEPS):
        usual = np.concatenate((off[:3], inverse * off[3:]))
        along = np.hypot(noise, _BENT * inverse * shifts.by_depth)
        deviations = np.concatenate((along, np.full(n, noise), pull * usual))
        scaled = np.concatenate((weight, weight, np.ones(6))) / deviations
        rows = columns * scaled[:, None]
        normal = rows.T @ rows
        solved = np.linalg.solve(normal, rows.T @ (wanted * scaled))
        left = wanted - columns @ solved
        inverse = max(float(solved[0]), _LEAST_INVERSE)
        # Odometry is as far off as it shows itself to be.
        pull = min(max(1.0, math.sqrt(float(np.mean((solved[1:] / usual) ** 2)))), _MOST_PULL)
        apart = np.hypot(left[:n] / along, left[n : 2 * n] / noise)
        weight = np.sqrt(np.minimum(1.0, _HUBER / np.maximum(apart, 1e-9)))
    return _Fit(
        float(solved[0]),
        math.sqrt(float(np.linalg.inv(normal)[0, 0])) / inverse,
        apart,
        1.4826 * float(np.median(np.abs(left[:n]) / (inverse * shifts.by_depth))),
        pull,
        solved[0] < _LEAST_INVERSE
        or (pull >= _MOST_PULL and _is_left_across(shifts, off, noise, weight)),
    )


def _is_left_across(shifts: _Shifts, off: np.ndarray, noise: float, weight: np.ndarray) -> bool:
    """Tell whether tracks leave their way by more than a turn explains.

    How far they go along it depends on depth, which may be bent; across, on none.
    """
    n = len(weight)
    across, columns = shifts.moved[n:], shifts.columns[n:, :3] * off[:3]  # of the usual turn
    weighed = columns * (weight / noise)[:, None] ** 2
    turn = np.linalg.solve(columns.T @ weighed + np.eye(3), weighed.T @ across)
    left = float(np.median(np.abs(across - columns @ turn))) / noise
    return left > _MOST_ACROSS or float(np.sqrt(np.mean(turn**2))) > _MOST_TURN
