# SPDX-License-Identifier: Apache-2.0
"""Which way a robot has gone from one moment to another, by nav_msgs/Odometry."""

from __future__ import annotations

import threading
from bisect import bisect, insort
from typing import Any

import numpy as np

from smoothdino_model.recordings.frames import stamp_ns_of
from smoothdino_model.scale.transforms import between_poses, matrix_of

ODOMETRY = 'nav_msgs/msg/Odometry'
_KEPT = 2000  # messages: more than what a picture is kept for, of the fastest
_AHEAD_NS = 100_000_000  # of the latest message, for which a robot goes on as it went
_LEAST_NS = 1_000_000  # between messages, beneath which they are of one moment
_GAP_NS = 500_000_000  # between messages: beyond, nobody knows how it went in between
# How far off the way it went on before a message may be: beyond, the robot was put elsewhere.
_JUMP_M, _JUMP_M_S2 = 0.1, 10.0
_MOST_STEPS = 3.0  # that it may have gone on by: stamps are uneven

Pose = tuple[int, np.ndarray, np.ndarray]  # stamp, translation, unit quaternion


class Odometry:
    """Hears one topic; one thread may `take` while another asks.

    ``child_frame_id`` is that of the latest message. A jump, a frame of another name and a stamp
    that goes back by much begin anew: nothing is told across them.
    """

    def __init__(self) -> None:
        self.child_frame_id = ''
        self._frame_id = ''
        self._poses: list[Pose] = []  # by stamp
        self._fault = 'no odometry has come'  # why the latest message tells nothing
        self._began = ''  # why it began anew
        self._lock = threading.Lock()

    def take(self, message: Any) -> None:
        at, turned = message.pose.pose.position, message.pose.pose.orientation
        position = np.array((at.x, at.y, at.z))
        quaternion = np.array((turned.x, turned.y, turned.z, turned.w))
        length = float(np.linalg.norm(quaternion))
        with self._lock:
            if not np.isfinite(position).all() or not abs(length - 1) < 0.1:
                self._fault = (
                    'expected an odometry with a finite position and an orientation of length 1, '
                    f'got ({at.x:.3g}, {at.y:.3g}, {at.z:.3g}) and length {length:.3g}'
                )
                return
            self._fault = ''
            self._add((stamp_ns_of(message.header), position, quaternion / length), message)

    def moved(self, from_ns: int, to_ns: int) -> np.ndarray:
        """Give to_from (4, 4): points in the child frame then, in the child frame at another time.

        Raises ValueError, in words, where it is not known.
        """
        with self._lock:
            if self._fault:
                raise ValueError(self._fault)
            return np.linalg.solve(self._at(to_ns), self._at(from_ns))

    def _add(self, pose: Pose, message: Any) -> None:
        frames = message.header.frame_id, message.child_frame_id
        why = ''
        if self._poses:
            if frames != (self._frame_id, self.child_frame_id):
                why = 'the frames of the odometry have changed, to {:.40} and {:.40}'.format(
                    *frames
                )
            elif pose[0] < self._poses[-1][0] - _GAP_NS:
                why = 'the stamps of the odometry have gone back'
            else:
                why = _jump(self._poses[-2:], pose)
        if why:
            self._poses, self._began = [], why
        self._frame_id, self.child_frame_id = frames
        insort(self._poses, pose, key=_stamp_ns)
        del self._poses[:-_KEPT]

    def _at(self, stamp_ns: int) -> np.ndarray:
        poses = self._poses
        after = bisect(poses, stamp_ns, key=_stamp_ns)
        if after == 0:
            early_s = (poses[0][0] - stamp_ns) / 1e9
            raise ValueError(
                self._began
                or f'the odometry begins {early_s:.1f} s after the image: do their clocks agree?'
            )
        if after < len(poses):
            before, then = poses[after - 1 : after + 1]
        else:
            late_ns = stamp_ns - poses[-1][0]
            if late_ns > _AHEAD_NS:
                raise ValueError(
                    f'the latest odometry is {late_ns / 1e9:.1f} s older than the image: does it '
                    'come too late, or do the clocks disagree?'
                )
            # As it went over a while: of two messages that come at once, noise would be a speed.
            last = bisect(poses, poses[-1][0] - _AHEAD_NS, key=_stamp_ns)
            before, then = poses[max(last - 1, 0)], poses[-1]
            if then[0] - before[0] > _GAP_NS:
                before = then  # how it goes is not known yet
        gap_ns = then[0] - before[0]
        if gap_ns > _GAP_NS:
            raise ValueError(
                f'the odometry has a gap of {gap_ns / 1e9:.1f} s about the image: is something '
                'lost, or do their clocks disagree?'
            )
        part = (stamp_ns - before[0]) / gap_ns if gap_ns >= _LEAST_NS else 1.0
        return matrix_of(*between_poses(before[1:], then[1:], part))


def _stamp_ns(pose: Pose) -> int:
    return pose[0]


def _jump(last: list[Pose], pose: Pose) -> str:
    """Say that a pose is not where its two predecessors lead; '' if it is, or nobody knows."""
    if len(last) < 2 or not 0 < pose[0] - last[1][0] <= _GAP_NS:
        return ''
    passed_s, before_s = (pose[0] - last[1][0]) / 1e9, (last[1][0] - last[0][0]) / 1e9
    step_m = (last[1][1] - last[0][1]) * min(passed_s / max(before_s, 1e-9), _MOST_STEPS)
    off_m = float(np.linalg.norm(pose[1] - last[1][1] - step_m))
    if off_m <= _JUMP_M + _JUMP_M_S2 * passed_s * max(passed_s, before_s):
        return ''
    return f'the odometry has jumped by {off_m:.1f} m within {passed_s:.2f} s'
