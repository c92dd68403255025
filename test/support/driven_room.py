# SPDX-License-Identifier: Apache-2.0
"""A drive through a room: its pictures, and a base on wheels whose odometry is exact."""

import cv2
import numpy as np

from smoothdino_model.recordings.frames import Frame
from smoothdino_model.room.sample_room import NYU_FOCAL, SampleRoom
from smoothdino_model.scale.ranges import mounted

WIDTH, HEIGHT = 320, 240
FOCAL_PX = 1.5 * NYU_FOCAL * WIDTH  # seen through it, the network has all too near
PERIOD_NS = 100_000_000
POSE = (-0.2, 0.1, -0.5, 0.0, 5.0, 20.0)  # of the base from the camera
_FIRST = 40  # where the ride goes aside


class DrivenRoom:
    """Frame i is one of the ride; poses are told at any moment of it."""

    def __init__(self) -> None:
        self._room = SampleRoom(
            1_000_003, height=HEIGHT, width=WIDTH, focal_px=FOCAL_PX, rate_hz=1e9 / PERIOD_NS
        )

    def frames(self, count: int) -> list[Frame]:
        return [self._room.frame(_FIRST + i) for i in range(count)]

    def base(self, at_ns: int, *, way: float = 1.0) -> tuple[list[float], list[float]]:
        """Where the base is since the first frame: position and quaternion x, y, z, w.

        ``way`` is what its wheels make of a metre.
        """
        world_from_camera = self._room._ride.pose((_FIRST * PERIOD_NS + at_ns) / 1e9)
        odom_from_base = world_from_camera @ mounted(*POSE)
        turn = cv2.Rodrigues(odom_from_base[:3, :3])[0].ravel()
        angle = float(np.linalg.norm(turn))
        axis = np.sin(angle / 2) * turn / max(angle, 1e-12)
        return (way * odom_from_base[:3, 3]).tolist(), [*axis.tolist(), float(np.cos(angle / 2))]
