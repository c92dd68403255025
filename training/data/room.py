# SPDX-License-Identifier: Apache-2.0
"""Windows from procedural rooms: endless, each a pure function of its index."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from smoothdino_model.sample_room import SampleRoom
from training.data.clips import TRAINED_FOCAL, Window

# Rooms from here on are never trained on.
FIRST_UNSEEN_ROOM = 1_000_000
_SAMPLES_PER_ROOM = 16
_ROOMS_AT_HAND = 24
_RIDE_FRAMES = 900  # 30 s of camera at 30 Hz


class RoomWindows:
    """Windows at 30 Hz times the stride, in rooms of varied focal lengths."""

    def __init__(self, *, height: int, width: int) -> None:
        self.height = height
        self.width = width

    def window(self, rng: np.random.Generator, length: int, stride: int, *, index: int) -> Window:
        """Draw a window from one of the rooms that are at hand when sample ``index`` is drawn.

        Building a room costs as much as a dozen frames of it, so that a few dozen are kept and
        the oldest is exchanged every few samples.
        """
        newest = index // _SAMPLES_PER_ROOM
        seed = newest + int(rng.integers(_ROOMS_AT_HAND))
        room = _room(seed % FIRST_UNSEEN_ROOM, self.height, self.width)
        start = int(rng.integers(_RIDE_FRAMES))
        return room_window(room, start, length, stride)


def room_window(room: SampleRoom, start: int, length: int, stride: int) -> Window:
    frames = [room.frame(start + i * stride) for i in range(length)]
    return Window(
        np.stack([frame.rgb for frame in frames]),
        np.stack([frame.depth_m for frame in frames if frame.depth_m is not None]),
        room.intrinsics.fx_px / room.intrinsics.width,
    )


@lru_cache(maxsize=16)
def unseen_room(number: int, *, height: int, width: int) -> SampleRoom:
    """Give a room no training saw, with the focal length that models are trained at."""
    return SampleRoom(
        FIRST_UNSEEN_ROOM + number, height=height, width=width, focal_px=TRAINED_FOCAL * width
    )


@lru_cache(maxsize=_ROOMS_AT_HAND + 8)
def _room(seed: int, height: int, width: int) -> SampleRoom:
    # A lens other than the trained one is only a matter of scale; some are enough to learn it.
    focal_px = TRAINED_FOCAL * width if seed % 5 < 3 else None
    return SampleRoom(seed, height=height, width=width, focal_px=focal_px)
