# SPDX-License-Identifier: Apache-2.0
"""Depth whose scale is anchored: by the floor, a scan cut from truth, or the true way, all but."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.filter import SCALE_RANGE, ScaleState, filtered
from smoothdino_model.scale.floor import Floor, floor_scale
from smoothdino_model.scale.measurement import Measurement, vouched
from smoothdino_model.scale.ranges import points_scale
from training.evaluation.driven import Driven

KINDS = ('floor', 'scan', 'odometry', 'true-floor')
_NOISE_M, _DROPPED = 0.02, 0.1  # of a scan
_BEAMS_RAD = math.radians(0.5)  # from one to the next
_ROW_M = 0.03  # off the height of a scan: what a beam sees of a map of pixels
_FLOOR_M = 0.05  # over the floor and beneath: what is floor in the true depth
_LEAST_FLOOR, _SURE = 0.03, 0.01  # of a picture; the spread of what is measured by the truth


@dataclass(frozen=True, eq=False)
class Surroundings:
    """One frame as anchors know it: camera, floor (None: not known), true depth (H, W), stamp.

    Odometry knows its picture (H, W, 3) and pose (4, 4) as well, a floor what looks like one, as
    :func:`vouched` takes it.
    """

    camera: Intrinsics
    floor: Floor | None
    truth_m: np.ndarray
    stamp_ns: int
    rgb: np.ndarray | None = None
    world_from_camera: np.ndarray | None = None
    looks: np.ndarray | None = None


@dataclass(eq=False)
class Anchored:
    """Depth of consecutive frames, anchored in several ways: ``floor``, ``scan``, ``floor+scan``.

    Each keeps a state of its own, as a camera of the pipeline does. A scan is level at
    ``scan_height_m`` over the floor; without that it is the row of the picture's middle, as a
    lidar on the camera sees it. Odometry is that of :class:`Driven`; ``true-floor`` is the best
    that any floor can say. Raises ValueError for anchors that there are not.
    """

    ways: Sequence[str]
    scan_height_m: float | None = None
    _states: dict[str, ScaleState] = field(default_factory=dict)
    _driven: Driven = field(default_factory=Driven)

    def __post_init__(self) -> None:
        for way in self.ways:
            if not set(way.split('+')) <= set(KINDS):
                raise ValueError(
                    f'--scale-anchor: expected some of {", ".join(KINDS)}, joined by +, '
                    f'got {way!r}'
                )

        if self.scan_height_m is not None and not 0 < self.scan_height_m < math.inf:
            raise ValueError(
                f'--scan-height: expected metres over the floor, got {self.scan_height_m}'
            )

    def reset(self) -> None:
        """Forget the previous frames: the next one starts a stretch."""
        self._states.clear()
        self._driven = Driven()

    def depths(self, depth_m: np.ndarray, around: Surroundings) -> dict[str, np.ndarray]:
        """Give the depth (H, W) of the next frame in each way, out of that without anchors."""
        measured = {
            kind: vouched(anchor(depth_m), around.looks)
            for kind, anchor in self._anchors(around).items()
        }
        anchored = {}
        for way in self.ways:
            self._states[way] = filtered(
                self._states.get(way),
                [measured[kind] for kind in way.split('+') if kind in measured],
                stamp_ns=around.stamp_ns,
                least=SCALE_RANGE[0],
                most=SCALE_RANGE[1],
            )
            anchored[way] = depth_m * np.float32(self._states[way].scale)
        return anchored

    def _anchors(self, around: Surroundings) -> dict[str, Callable[[np.ndarray], Measurement]]:
        anchors: dict[str, Callable[[np.ndarray], Measurement]] = {}
        wanted = {kind for way in self.ways for kind in way.split('+')}
        if 'floor' in wanted and around.floor is not None:
            anchors['floor'] = partial(floor_scale, camera=around.camera, floor=around.floor)
        if 'true-floor' in wanted and around.floor is not None:
            anchors['true-floor'] = partial(true_floor_scale, around=around)
        if 'scan' in wanted and (self.scan_height_m is None or around.floor is not None):
            points_m = scan_of(around, height_m=self.scan_height_m)
            anchors['scan'] = partial(points_scale, camera=around.camera, points_m=points_m)
        if (
            'odometry' in wanted
            and around.rgb is not None
            and around.world_from_camera is not None
        ):
            anchor = self._driven.anchor(
                around.rgb, around.stamp_ns, around.camera, around.world_from_camera
            )
            anchors |= {'odometry': anchor} if anchor else {}
        return anchors


def scan_of(around: Surroundings, *, height_m: float | None) -> np.ndarray:
    """Cut a scan's points (N, 3), in the camera's axes, from the true depth, noise and all.

    It is the same whenever it is asked for.
    """
    points_m = _points(around.truth_m, around.camera)
    if height_m is None:
        points_m = points_m[around.camera.height // 2]
    else:
        over_m = _over_floor_m(points_m, around)
        points_m = points_m[np.abs(over_m - height_m) < _ROW_M]
    points_m = points_m[np.isfinite(points_m).all(axis=-1) & (points_m[:, 2] > 0)]
    right, _, ahead = points_m.T
    beam = np.round(np.arctan2(right, ahead) / _BEAMS_RAD)
    nearest = np.lexsort((ahead, beam))
    points_m = points_m[nearest[np.unique(beam[nearest], return_index=True)[1]]]
    rng = np.random.default_rng(around.stamp_ns)
    points_m = points_m[rng.random(len(points_m)) >= _DROPPED]
    distance_m = np.linalg.norm(points_m, axis=-1, keepdims=True)
    return points_m * (1 + rng.normal(0, _NOISE_M, distance_m.shape) / distance_m)


def true_floor_scale(depth_m: np.ndarray, around: Surroundings) -> Measurement:
    """The scale that is right on the floor, as the true depth (H, W) shows it.

    What it is off by for the picture is how far the depth is bent.
    """
    floor = np.abs(height_over_floor_m(around)) < _FLOOR_M
    if floor.mean() < _LEAST_FLOOR:
        return Measurement(why_none='too little of the picture is floor')
    return Measurement(float(np.median(np.log(around.truth_m / depth_m)[floor])), _SURE)


def floor_share(around: Surroundings) -> float:
    """Tell how much of the picture is floor by its true depth; NaN where it is not known."""
    if around.floor is None:
        return math.nan
    return float(np.mean(np.abs(height_over_floor_m(around)) < _FLOOR_M))


def height_over_floor_m(around: Surroundings) -> np.ndarray:
    """Give the height over the floor (H, W) by the true depth; NaN where it is not known."""
    return _over_floor_m(_points(around.truth_m, around.camera), around)


def _over_floor_m(points_m: np.ndarray, around: Surroundings) -> np.ndarray:
    """Height of points (..., 3) over the floor; NaN where that is not known."""
    if around.floor is None:
        return np.full(points_m.shape[:-1], np.nan)
    return around.floor.height_m - points_m @ np.array(around.floor.down)


def _points(depth_m: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Points (H, W, 3) in the camera's axes: x right, y down, z forward."""
    height, width = depth_m.shape
    x = (np.arange(width) - camera.cx_px) / camera.fx_px
    y = (np.arange(height)[:, None] - camera.cy_px) / camera.fy_px
    return np.stack(np.broadcast_arrays(x, y, 1.0), axis=-1) * depth_m[..., None]
