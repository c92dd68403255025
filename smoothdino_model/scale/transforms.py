# SPDX-License-Identifier: Apache-2.0
"""What /tf and /tf_static have said, and the way from one frame to another at a time.

tf2_ros does this and more; it is not needed for the one chain that a camera asks for, and ROS from
PyPI has none. Nothing here knows ROS.
"""

from __future__ import annotations

import threading
from bisect import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np

from smoothdino_model.recordings.frames import stamp_ns_of

_KEPT = 1000  # transforms of one frame: ten seconds at 100 Hz
_WITHIN_NS = 500_000_000  # of the time that is asked for, where a moving frame says nothing of it


class _Joint:
    """Where a frame is in its parent, over time; a static one is so at any."""

    def __init__(self, parent: str, *, static: bool) -> None:
        self.parent, self.static = parent, static
        self._stamps_ns: list[int] = []
        self._poses: list[tuple[np.ndarray, np.ndarray]] = []  # translation, unit quaternion

    def add(self, stamp_ns: int, translation: np.ndarray, quaternion: np.ndarray) -> None:
        if self.static or (self._stamps_ns and stamp_ns <= self._stamps_ns[-1] - _WITHIN_NS):
            self._stamps_ns, self._poses = [], []  # a bag that begins anew
        at = bisect(self._stamps_ns, stamp_ns)
        self._stamps_ns.insert(at, stamp_ns)
        self._poses.insert(at, (translation, quaternion))
        del self._stamps_ns[:-_KEPT], self._poses[:-_KEPT]

    def at(self, stamp_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Interpolate between the transforms before and after; else the nearest, if it is near."""
        if self.static:
            return self._poses[-1]
        after = bisect(self._stamps_ns, stamp_ns)
        if 0 < after < len(self._stamps_ns):
            before_ns, after_ns = self._stamps_ns[after - 1 : after + 1]
            part = (stamp_ns - before_ns) / (after_ns - before_ns)
            return between_poses(self._poses[after - 1], self._poses[after], part)
        nearest = max(after - 1, 0)
        apart_s = (stamp_ns - self._stamps_ns[nearest]) / 1e9
        if abs(apart_s) * 1e9 > _WITHIN_NS:
            raise ValueError(f'is {abs(apart_s):.1f} s {"older" if apart_s > 0 else "younger"}')
        return self._poses[nearest]


class Transforms:
    """Frames by their names, each in its parent; any thread may add and ask."""

    def __init__(self) -> None:
        self._joints: dict[str, _Joint] = {}
        self._lock = threading.Lock()

    def add(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        translation: Sequence[float],
        quaternion: Sequence[float],
        *,
        static: bool,
    ) -> None:
        """Take parent_from_child, metres and x, y, z, w; what is no transform is left out."""
        parent, child = parent.lstrip('/'), child.lstrip('/')
        moved, turned = np.array(translation, float), np.array(quaternion, float)
        length = np.linalg.norm(turned)
        if not np.isfinite((*moved, length)).all() or length < 1e-6 or parent == child:
            return
        with self._lock:
            joint = self._joints.get(child)
            if joint is None or (joint.parent, joint.static) != (parent, static):
                joint = self._joints[child] = _Joint(parent, static=static)
            joint.add(stamp_ns, moved, turned / length)

    def take(self, message: Any, *, static: bool) -> None:
        """Add what a TFMessage says, rclpy's or rosbags'."""
        for one in message.transforms:
            moved, turned = one.transform.translation, one.transform.rotation
            self.add(
                one.header.frame_id,
                one.child_frame_id,
                stamp_ns_of(one.header),
                (moved.x, moved.y, moved.z),
                (turned.x, turned.y, turned.z, turned.w),
                static=static,
            )

    def between(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """Give target_from_source (4, 4) in metres, as of a time.

        Raises ValueError, in words, where there is no way between the two, or none at that time.
        """
        target, source = target.lstrip('/'), source.lstrip('/')
        with self._lock:
            up, down = self._chain(source), self._chain(target)
            common = next((frame for frame in up if frame in down), None)
            if common is None:
                raise ValueError(
                    f'TF knows no way from {source!r:.80} to {target!r:.80}: is their '
                    'robot_state_publisher or static_transform_publisher running?'
                )
            common_from_source = self._product(up[: up.index(common)], stamp_ns)
            common_from_target = self._product(down[: down.index(common)], stamp_ns)
        return np.linalg.solve(common_from_target, common_from_source)

    def _chain(self, frame: str) -> list[str]:
        """The frame, its parent, and so on to the root."""
        chain = [frame]
        while (joint := self._joints.get(chain[-1])) and joint.parent not in chain:
            chain.append(joint.parent)
        return chain

    def _product(self, frames: Sequence[str], stamp_ns: int) -> np.ndarray:
        """Of frames, each the parent of the one before: from the first to the last's parent."""
        whole = np.eye(4)
        for frame in frames:
            try:
                whole = matrix_of(*self._joints[frame].at(stamp_ns)) @ whole
            except ValueError as error:
                raise ValueError(
                    f'the nearest transform of {frame!r:.80} {error} than the image: does it come '
                    'too late, or do the clocks disagree?'
                ) from None
        return whole


def between_poses(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], part: float
) -> tuple[np.ndarray, np.ndarray]:
    """Straight on, and by the shorter way round at an even pace (slerp)."""
    translation = (1 - part) * before[0] + part * after[0]
    one, other = before[1], after[1]
    cosine = float(one @ other)
    if cosine < 0:
        other, cosine = -other, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-4:
        turned = (1 - part) * one + part * other
    else:
        turned = np.sin((1 - part) * angle) * one + np.sin(part * angle) * other
    return translation, turned / np.linalg.norm(turned)


def matrix_of(translation: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    x, y, z, w = quaternion
    matrix = np.eye(4)
    matrix[:3, :3] = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    matrix[:3, 3] = translation
    return matrix
