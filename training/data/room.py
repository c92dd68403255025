# SPDX-License-Identifier: Apache-2.0
"""Windows from procedural rooms: endless, each a pure function of its index."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from smoothdino_model.sample_room import SampleRoom
from training.data.clips import TRAINED_FOCAL, Window

# Rooms from here on are never trained on.
FIRST_UNSEEN_ROOM = 1_000_000
_WINDOWS_PER_ROOM = 16
_ROOMS_AT_HAND = 24
_WINDOWS_AT_HAND = 512
_SAMPLES_PER_WINDOW = 4
_RIDE_FRAMES = 900  # 30 s of camera at 30 Hz


class RoomWindows:
    """Windows whose frames are ``strides`` (least, most) frames of 30 Hz apart."""

    def __init__(self, *, height: int, width: int, strides: tuple[int, int] = (1, 1)) -> None:
        self.height = height
        self.width = width
        self.strides = strides

    def window(self, rng: np.random.Generator, length: int, *, index: int) -> Window:
        """Give one of the windows that are at hand when sample ``index`` is drawn.

        Drawing costs a core as much as learning from what was drawn. A few hundred windows are
        kept and the oldest is exchanged every few samples: each is seen a few times.
        """
        number = index // _SAMPLES_PER_WINDOW + int(rng.integers(_WINDOWS_AT_HAND))
        return _drawn(number, length, self.strides, self.height, self.width)


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


@lru_cache(maxsize=_WINDOWS_AT_HAND + 8)
def _drawn(number: int, length: int, strides: tuple[int, int], height: int, width: int) -> Window:
    # Building a room costs as much as a dozen frames of it: a few dozen are at hand as well.
    rng = np.random.default_rng(number)
    seed = number // _WINDOWS_PER_ROOM + int(rng.integers(_ROOMS_AT_HAND))
    room = _room(seed % FIRST_UNSEEN_ROOM, height, width)
    stride = int(rng.integers(strides[0], strides[1] + 1))
    return room_window(room, int(rng.integers(_RIDE_FRAMES)), length, stride)
