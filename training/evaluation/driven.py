# SPDX-License-Identifier: Apache-2.0
"""Odometry made of a clip's true poses, off as that of a good robot is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.measurement import Measurement
from smoothdino_model.scale.motion import motion_scale
from smoothdino_model.scale.tracks import Tracker

_WAY_OFF = 0.01  # standard deviation of the share by which all of a stretch's ways are off
_TURN_OFF_DEG = 0.2  # and of the degrees a metre that it turns by, about each axis


class Driven:
    """One stretch: its pictures are tracked, and its poses added up with what is off.

    What is off is drawn by the first picture, and the same in every run.
    """

    def __init__(self) -> None:
        self._tracker = Tracker()
        self._poses: dict[int, np.ndarray] = {}  # as odometry has them, by stamp
        self._last: tuple[np.ndarray, np.ndarray] | None = None  # the true one, and odometry's
        self._way, self._turn = 1.0, np.zeros(3)

    def anchor(
        self, rgb: np.ndarray, stamp_ns: int, camera: Intrinsics, world_from_camera: np.ndarray
    ) -> Callable[[np.ndarray], Measurement] | None:
        """Take the next picture and its true pose; None where there is nothing to compare."""
        tracks = self._tracker.follow(rgb, stamp_ns)
        if not np.isfinite(world_from_camera).all():
            return None
        self._poses[stamp_ns] = self._added(rgb, world_from_camera)
        if tracks is None or tracks.key_ns not in self._poses:
            return None
        moved = np.linalg.solve(self._poses[stamp_ns], self._poses[tracks.key_ns])
        return partial(motion_scale, camera=camera, tracks=tracks, current_from_key=moved)

    def _added(self, rgb: np.ndarray, true: np.ndarray) -> np.ndarray:
        if self._last is None:
            rng = np.random.default_rng(int(rgb.sum(dtype=np.int64)))
            self._way = 1 + rng.normal(0, _WAY_OFF)
            self._turn = np.radians(rng.normal(0, _TURN_OFF_DEG, 3))
            self._last = true, np.eye(4)
        before, pose = self._last
        step = np.linalg.solve(before, true)
        step[:3, :3] = step[:3, :3] @ cv2.Rodrigues(self._turn * np.linalg.norm(step[:3, 3]))[0]
        step[:3, 3] *= self._way
        self._last = true, pose @ step
        return self._last[1]
