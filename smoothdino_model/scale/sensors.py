# SPDX-License-Identifier: Apache-2.0
"""What anchors the scale of a camera's frames, out of numbers, TF and what its sensors have said.

The node hears them as they come, the commands read them from a bag: messages are rclpy's or
rosbags', by their fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from smoothdino_model.recordings.frames import Intrinsics, stamp_ns_of
from smoothdino_model.scale.floor import Floor, floor_of_pose, floor_of_tilt, floor_scale
from smoothdino_model.scale.gravity import IMU, Gravity
from smoothdino_model.scale.latest import Latest
from smoothdino_model.scale.measurement import Measurement
from smoothdino_model.scale.motion import motion_scale
from smoothdino_model.scale.odometry import ODOMETRY, Odometry
from smoothdino_model.scale.ranges import (
    cloud_points,
    cone_scale,
    mounted,
    moved,
    points_scale,
    range_points,
    scan_points,
)
from smoothdino_model.scale.tracks import Tracker, Tracks

Anchor = Callable[[np.ndarray], Measurement]
Between = Callable[[str, str, int], np.ndarray]  # target_from_source of two frames, at a time


@dataclass(frozen=True)
class RangeKind:
    """Type of the messages, how one becomes points, how these are compared, and how many wait."""

    message: str
    points: Callable[[Any], np.ndarray]
    compare: Callable[..., Measurement]
    kept: int


RANGES = {
    'scan': RangeKind('sensor_msgs/msg/LaserScan', scan_points, points_scale, 64),
    'range': RangeKind('sensor_msgs/msg/Range', range_points, cone_scale, 64),
    'points': RangeKind('sensor_msgs/msg/PointCloud2', cloud_points, points_scale, 8),
}
ANCHORS = ('floor', *RANGES, 'odometry')
MESSAGES = {name: kind.message for name, kind in RANGES.items()} | {
    'odometry': ODOMETRY,
    'imu': IMU,
}


@dataclass(frozen=True)
class Mounting:
    """Where a camera and its sensors are, as far as numbers tell.

    Of the camera: metres over the floor (0: not known) and tilt in degrees, or the name of a frame
    on the floor, from which TF tells tilt and, without a height, that too, or an IMU that tells
    the tilt. ``poses`` are those of sensors, ``imu`` and the child frame of ``odometry`` among
    them, against the camera, x, y, z, roll, pitch and yaw as for :func:`mounted`; where one is ()
    or missing, TF tells.
    """

    height_m: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    base_frame: str = ''
    tilt_by_imu: bool = False
    poses: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


class Sensors:
    """Makes the anchors of a camera's frames; one thread may `take` while another asks.

    ``names`` are of ``ANCHORS``; ``between`` is TF's way from one frame to another.
    """

    def __init__(self, names: Collection[str], between: Between) -> None:
        self._names, self._between = names, between
        self._heard: dict[str, Latest] = {}
        self._gravity, self._odometry, self._tracker = Gravity(), Odometry(), Tracker()
        self.floor: Floor | None = None  # that of the latest frame; replaced whole
        self.forget()

    def forget(self) -> None:
        """Let go of what was said so far."""
        self._heard = {
            name: Latest(name, RANGES[name].kept) for name in self._names if name in RANGES
        }
        self._gravity, self._odometry, self._tracker = Gravity(), Odometry(), Tracker()
        self.floor = None

    def take(self, name: str, message: Any) -> None:
        """Hear a message of the sensor of that name, 'imu' or an anchor."""
        if name == 'imu':
            self._gravity.take(message)
        elif name == 'odometry':
            self._odometry.take(message)
        else:
            self._heard[name].add(stamp_ns_of(message.header), message)

    def anchors(
        self,
        camera: Intrinsics | None,
        frame_id: str,
        stamp_ns: int,
        mounting: Mounting,
        rgb: np.ndarray,
    ) -> dict[str, Anchor]:
        """Give what measures the scale of an image's depth, by the names of the anchors.

        What cannot says why, as does each without a camera. Images (H, W, 3) are to come in the
        order of time.
        """
        anchors: dict[str, Anchor] = {}
        for name in self._names:
            try:
                if camera is None:
                    raise ValueError('there is no camera_info that fits')
                anchors[name] = self._anchor(name, camera, frame_id, stamp_ns, mounting, rgb)
            except ValueError as error:
                anchors[name] = partial(_silent, str(error))
        return anchors

    def _anchor(
        self,
        name: str,
        camera: Intrinsics,
        frame_id: str,
        stamp_ns: int,
        mounting: Mounting,
        rgb: np.ndarray,
    ) -> Anchor:
        if name == 'floor':
            self.floor = None
            self.floor = floor = self._floor(frame_id, stamp_ns, mounting)
            return partial(floor_scale, camera=camera, floor=floor)
        if name == 'odometry':
            tracks = self._tracker.follow(rgb, stamp_ns)
            if tracks is None:
                raise ValueError('this is the first picture, with which the next are compared')
            moved_by = partial(self._moved, tracks.key_ns, stamp_ns, frame_id, mounting)
            return partial(_by_motion, camera=camera, tracks=tracks, moved=moved_by)
        kind, message = RANGES[name], self._heard[name].nearest(stamp_ns)
        sensor_frame = message.header.frame_id
        camera_from_sensor = self._from(name, sensor_frame, frame_id, stamp_ns, mounting)
        points_m = moved(kind.points(message), camera_from_sensor)
        if not len(points_m):
            raise ValueError(f'the {name} sees nothing within its range')
        return partial(kind.compare, camera=camera, points_m=points_m)

    def _moved(self, key_ns: int, stamp_ns: int, frame_id: str, mounting: Mounting) -> np.ndarray:
        """Give current_from_key (4, 4) of the camera, by odometry."""
        current_from_key = self._odometry.moved(key_ns, stamp_ns)
        child = self._odometry.child_frame_id
        if not child and not mounting.poses.get('odometry'):
            raise ValueError(
                'the odometry names no child_frame_id, so that the place of the camera on it is '
                'not known: give it by odometry_pose'
            )
        key, current = (
            self._from('odometry', child, frame_id, at_ns, mounting)
            for at_ns in (key_ns, stamp_ns)
        )
        return current @ current_from_key @ np.linalg.inv(key)

    def _from(
        self, name: str, sensor_frame: str, frame_id: str, stamp_ns: int, mounting: Mounting
    ) -> np.ndarray:
        """Give camera_from_sensor (4, 4), by numbers or TF."""
        if pose := mounting.poses.get(name):
            return mounted(*pose)
        return self._between(frame_id, sensor_frame, stamp_ns)

    def _floor(self, frame_id: str, stamp_ns: int, mounting: Mounting) -> Floor:
        if mounting.tilt_by_imu:
            imu_frame, up = self._gravity.nearest(stamp_ns)
            turned = self._from('imu', imu_frame, frame_id, stamp_ns, mounting)[:3, :3]
            right, down, ahead = (-turned @ up).tolist()
            return Floor(mounting.height_m, (right, down, ahead))
        if not mounting.base_frame:
            return floor_of_tilt(mounting.height_m, mounting.pitch_deg, mounting.roll_deg)
        pose = self._between(mounting.base_frame, frame_id, stamp_ns)
        if mounting.height_m:  # the frame may lie above the floor
            pose[2, 3] = mounting.height_m
        return floor_of_pose(pose)


def anchor_names(words: str) -> tuple[str, ...]:
    """Read names that are joined by +, 'none' as no name.

    Raises ValueError where one is unknown or named twice.
    """
    names = () if words == 'none' else tuple(words.split('+'))
    if len(set(names)) != len(names) or not set(names) <= set(ANCHORS):
        raise ValueError(
            f'expected none or some of {", ".join(ANCHORS)}, joined by +, got {words!r}'
        )
    return names


def pose_in_words(words: str) -> tuple[float, ...]:
    """Read x, y, z in metres and roll, pitch, yaw in degrees; () of nothing.

    Raises ValueError on anything else.
    """
    try:
        pose = tuple(float(word) for word in words.split())
    except ValueError:
        pose = (math.nan,)
    if len(pose) not in (0, 6) or not all(math.isfinite(one) for one in pose):
        raise ValueError(f"expected six numbers such as '0.1 0 -0.2 0 0 0', got {words!r}")
    return pose


def _by_motion(
    depth_m: np.ndarray,
    *,
    camera: Intrinsics,
    tracks: Tracks,
    moved: Callable[[], np.ndarray],
) -> Measurement:
    """Ask for the way only now: while the network ran, the odometry of the image has come."""
    try:
        current_from_key = moved()
    except ValueError as error:
        return Measurement(why_none=str(error))
    return motion_scale(depth_m, camera, tracks, current_from_key)


def _silent(why: str, _: np.ndarray) -> Measurement:
    return Measurement(why_none=why)
