# SPDX-License-Identifier: Apache-2.0
"""Windows from procedural rooms: endless, each a pure function of where it stands in a stream."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.scale.floor import floor_of_pose
from training.data.clip_json import TRAINED_FOCAL
from training.data.clips import Window

# Rooms from here on are never trained on.
FIRST_UNSEEN_ROOM = 1_000_000
# Workers take batches in turn, and each draws the windows of its batches itself. Batches of
# different stripes have no window and no room in common, so that as many workers as divide the
# number of stripes draw nothing twice.
STRIPES = 8
SHOWINGS = 4  # of a window: drawing it costs a core more than learning from it
_BLOCK = 6  # windows of a stripe that are new at a time
_WINDOWS_PER_ROOM = 8  # many views of few rooms teach those rooms, not rooms
_ROOMS_AT_HAND = 3  # of a stripe
_HEIGHTS_M, _PITCHES_DEG = (0.2, 1.8), (-20, 30)  # of cameras anywhere; 30 looks down
_RIDE_FRAMES = 900  # 30 s of camera at 30 Hz


class RoomWindows:
    """Windows of ``length`` frames, ``strides`` (least, most) frames of 30 Hz apart.

    A stripe shows a few dozen windows in turn, exchanges the oldest for new ones and so shows
    each ``SHOWINGS`` times. One process that serves all stripes keeps about 400 windows.
    """

    def __init__(
        self,
        *,
        height: int,
        width: int,
        length: int = 1,
        strides: tuple[int, int] = (1, 1),
        seed: int = 0,
    ) -> None:
        self.height = height
        self.width = width
        self.length = length
        self.strides = strides
        self.seed = seed

    def window(self, turn: int, *, stripe: int = 0) -> Window:
        """Give the window that a stripe shows at ``turn``, counted from 0."""
        step, showing = divmod(turn, SHOWINGS)
        block, place = divmod(step, _BLOCK)
        order = np.random.default_rng((self.seed, stripe, block, showing)).permutation(_BLOCK)
        number = (block + SHOWINGS - 1 - showing) * _BLOCK + int(order[place])
        return _drawn(
            *(self.seed, stripe, number, self.length, self.strides, self.height, self.width)
        )


def room_window(room: SampleRoom, start: int, length: int, stride: int) -> Window:
    frames = [room.frame(start + i * stride) for i in range(length)]
    poses = [f.world_from_camera for f in frames if f.world_from_camera is not None]
    return Window(
        np.stack([frame.rgb for frame in frames]),
        np.stack([frame.depth_m for frame in frames if frame.depth_m is not None]),
        room.intrinsics.focal,
        np.stack(poses),
        tuple(frame.stamp_ns for frame in frames),
        tuple(floor_of_pose(pose) for pose in poses),
    )


@lru_cache(maxsize=16)
def unseen_room(number: int, *, height: int, width: int, any_mount: bool = False) -> SampleRoom:
    """Give a room no training saw, with the focal length that models are trained at.

    With ``any_mount`` its camera is 0.2 to 1.8 m over the floor and looks 30 degrees down to 20
    up.
    """
    seed = FIRST_UNSEEN_ROOM + number
    if any_mount:
        return room_of_any_mount(seed, height=height, width=width)
    return SampleRoom(seed, height=height, width=width, focal_px=TRAINED_FOCAL * width)


def room_of_any_mount(seed: int, *, height: int, width: int) -> SampleRoom:
    """Give a room whose camera is as high and tilted as those of robots may be."""
    rng = np.random.default_rng(seed)
    return SampleRoom(
        seed,
        height=height,
        width=width,
        focal_px=TRAINED_FOCAL * width,
        camera_height_m=rng.uniform(*_HEIGHTS_M),
        camera_pitch_deg=rng.uniform(*_PITCHES_DEG),
    )


@lru_cache(maxsize=(_ROOMS_AT_HAND + 1) * STRIPES)
def _room(number: int, height: int, width: int) -> SampleRoom:
    # A lens other than the trained one is only a matter of scale; some are enough to learn it.
    focal_px = TRAINED_FOCAL * width if number % 5 < 3 else None
    return SampleRoom(number, height=height, width=width, focal_px=focal_px)


@lru_cache(maxsize=(SHOWINGS + 1) * _BLOCK * STRIPES)
def _drawn(
    seed: int,
    stripe: int,
    number: int,
    length: int,
    strides: tuple[int, int],
    height: int,
    width: int,
) -> Window:
    rng = np.random.default_rng((seed, stripe, number))
    of_stripe = number // _WINDOWS_PER_ROOM + int(rng.integers(_ROOMS_AT_HAND))
    which = np.random.default_rng((seed, stripe, of_stripe)).integers(FIRST_UNSEEN_ROOM)
    room = _room(int(which), height, width)
    stride = int(rng.integers(strides[0], strides[1] + 1))
    return room_window(room, int(rng.integers(_RIDE_FRAMES)), length, stride)
