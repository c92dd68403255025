# SPDX-License-Identifier: Apache-2.0
"""Which way is up, by an inertial measurement unit (sensor_msgs/Imu, as REP 145 has it)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from smoothdino_model.recordings.frames import stamp_ns_of
from smoothdino_model.scale.latest import Latest

IMU = 'sensor_msgs/msg/Imu'
_KEPT = 1000  # messages: two seconds of the fastest
_SMOOTH_S = 1.0  # over which an acceleration is averaged: a robot that brakes is not tilted
_ANEW_NS = 1_000_000_000  # without messages, after which the average begins anew
_GRAVITY, _OFF = 9.81, 2.0  # m/s^2, and by how much the average may differ from it


class Gravity:
    """Hears one IMU; one thread may `take` while another asks.

    A message with an orientation tells by that; of one without (its covariance begins with -1, or
    the quaternion is all 0) the acceleration counts, averaged over a second: at rest it points up.
    """

    def __init__(self) -> None:
        self._heard = Latest[tuple[str, np.ndarray | str]]('imu', _KEPT)
        self._average: np.ndarray | None = None
        self._averaged_ns = 0

    def take(self, message: Any) -> None:
        stamp_ns = stamp_ns_of(message.header)
        try:
            up: np.ndarray | str = self._up(message, stamp_ns)
        except ValueError as error:
            up = str(error)
        self._heard.add(stamp_ns, (message.header.frame_id, up))

    def nearest(self, at_ns: int) -> tuple[str, np.ndarray]:
        """Give the IMU's frame and the unit vector (3,) that points up in it, as of a time.

        Raises ValueError, in words, where it is not known.
        """
        frame_id, up = self._heard.nearest(at_ns)
        if isinstance(up, str):
            raise ValueError(up)
        return frame_id, up

    def _up(self, message: Any, stamp_ns: int) -> np.ndarray:
        turned = message.orientation
        x, y, z, w = quaternion = (turned.x, turned.y, turned.z, turned.w)
        length = math.hypot(*quaternion)
        if message.orientation_covariance[0] != -1 and not length < 1e-6:
            if not abs(length - 1) < 0.1:
                raise ValueError(
                    f'expected an orientation of the imu of length 1, got {length:.3g}'
                )
            up = np.array(
                (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z)
            )
            return up / length**2
        if message.linear_acceleration_covariance[0] == -1:
            raise ValueError('the imu tells neither orientation nor acceleration')
        return self._smooth(message.linear_acceleration, stamp_ns)

    def _smooth(self, acceleration: Any, stamp_ns: int) -> np.ndarray:
        now = np.array((acceleration.x, acceleration.y, acceleration.z))
        if not np.isfinite(now).all():
            raise ValueError('the imu tells no finite acceleration')
        passed_ns = stamp_ns - self._averaged_ns
        if self._average is None or not 0 <= passed_ns < _ANEW_NS:
            self._average = now
        else:
            self._average = now + (self._average - now) * math.exp(-passed_ns / 1e9 / _SMOOTH_S)
        self._averaged_ns = stamp_ns
        size = float(np.linalg.norm(self._average))
        if abs(size - _GRAVITY) > _OFF:
            raise ValueError(
                f'expected an acceleration of the imu of about {_GRAVITY} m/s^2 at rest, got '
                f'{size:.1f}: gravity must be left in it (REP 145)'
            )
        return self._average / size
