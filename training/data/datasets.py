# SPDX-License-Identifier: Apache-2.0
"""Which samples training and validation see: rooms and clips, mixed by number."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.data.augment import augmented
from training.data.clips import Window
from training.data.room import STRIPES, RoomWindows, room_window, unseen_room
from training.data.runs import RunWindows

_GOLDEN = (math.sqrt(5) - 1) / 2
_ROOM_CROP, _CLIP_CROP = 0.85, 0.6  # least part that is left; rooms already come with all lenses


class WindowStream(Dataset):
    """Sample i is a pure function of i and the arguments, whichever process asks and when.

    In any stretch of it ``room_share`` of the samples show rooms. The others pass through the
    windows of ``clips`` again and again, each time in another order: a pass has as many samples as
    there are windows, and each comes as often as its ``odds`` (one for each window) say, rounded
    up or down. With ``variants`` above 0 a window of a clip is augmented in so many ways, times
    how often it comes in a pass, and not anew each time: what a frozen encoder gave can be kept.
    """

    def __init__(
        self,
        *,
        seed: int,
        size: tuple[int, int],
        rooms: RoomWindows | None,
        clips: list[RunWindows],
        odds: np.ndarray,
        room_share: float,
        batch: int,
        augment: bool = True,
        variants: int = 0,
    ) -> None:
        self.seed = seed
        self.size = size
        self.rooms = rooms
        self.clips = clips
        self.room_share = room_share
        self.batch = batch
        self.augment = augment
        self.variants = variants
        self.n_clip_windows = sum(map(len, clips))
        self._per_pass = odds * (len(odds) / odds.sum()) if len(odds) else odds
        self._pass: tuple[int, np.ndarray, np.ndarray] | None = None

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        stripe, room_turn, clip_turn = turn_of(index, batch=self.batch, room_share=self.room_share)
        if self.rooms is not None and room_turn is not None:
            window = self.rooms.window(room_turn, stripe=stripe)
            least_crop = _ROOM_CROP
        else:
            window, rng = self._clip_window(clip_turn, rng)
            least_crop = _CLIP_CROP
        if self.augment:
            height, width = self.size
            changed = augmented(window, rng, least_crop=least_crop, aspect=width / height)
            if np.isfinite(changed.depth_m).any(axis=(1, 2)).all():  # the crop left some truth
                window = changed
        return _tensors(window, self.size)

    def _clip_window(
        self, turn: int, rng: np.random.Generator
    ) -> tuple[Window, np.random.Generator]:
        """Give the window of a turn, and the chance by which it is augmented."""
        passed, place = divmod(turn, self.n_clip_windows)
        if self._pass is None or self._pass[0] != passed:
            self._pass = passed, *self._drawn(passed)
        number, copy = int(self._pass[1][place]), int(self._pass[2][place])
        if self.variants:
            most = math.ceil(self._per_pass[number])  # of its copies in a pass
            variant = (passed * most + copy) % (self.variants * most)
            rng = np.random.default_rng((self.seed, number, variant))
        for windows in self.clips:
            if number < len(windows):
                return windows.window(number, rng), rng
            number -= len(windows)
        raise IndexError(turn)

    def _drawn(self, passed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the windows of one pass; give their numbers, and which copy of its window each is.

        Evenly spaced marks on the line of all odds (systematic sampling): whoever is to come once
        comes once. From pass to pass they move by the golden ratio, which leaves nobody out for
        long.
        """
        marks = np.arange(self.n_clip_windows) + passed * _GOLDEN % 1
        numbers = np.searchsorted(np.cumsum(self._per_pass), marks, side='right')
        numbers = numbers.clip(max=self.n_clip_windows - 1)  # the sum's last digit
        copies = np.arange(len(numbers)) - np.searchsorted(numbers, numbers)
        order = np.random.default_rng((self.seed, passed)).permutation(len(numbers))
        return numbers[order], copies[order]


def turn_of(index: int, *, batch: int, room_share: float) -> tuple[int, int | None, int]:
    """Give the stripe of a sample, its turn among the rooms of the stripe, and among all clips.

    The turn among rooms is None for a sample that shows a clip. Batches take the stripes in turn.
    A stripe's n-th sample shows a room where n times the share passes a whole number, so that no
    turn is left out and none comes twice.
    """
    number, place = divmod(index, batch)
    round_, stripe = divmod(number, STRIPES)
    first, nth = round_ * batch, round_ * batch + place  # of the samples of each stripe

    def clips_before(n: int) -> int:
        return n - math.floor(n * room_share)

    if clips_before(nth + 1) == clips_before(nth):
        return stripe, nth - clips_before(nth), 0
    per_batch = clips_before(first + batch) - clips_before(first)
    rounds = STRIPES * clips_before(first)
    return stripe, None, rounds + stripe * per_batch + clips_before(nth) - clips_before(first)


class ValidationWindows(Dataset):
    """A fixed set: ``each`` windows in rooms never trained on, and of each list of windows."""

    def __init__(
        self,
        *,
        size: tuple[int, int],
        each: int,
        room: tuple[int, int] | None,
        clips: list[RunWindows],
    ) -> None:
        self.size = size
        self.each = each
        self.room = room  # length and stride
        self.clips = clips

    def __len__(self) -> int:
        return self.each * (len(self.clips) + (self.room is not None))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        source, number = divmod(index, self.each)
        if self.room is not None and source == 0:
            room = unseen_room(number // 2, height=self.size[0], width=self.size[1])
            window = room_window(room, 300 * (number % 2), *self.room)
        else:
            windows = self.clips[source - (self.room is not None)]
            evenly = (2 * number + 1) * len(windows) // (2 * self.each)
            window = windows.window(evenly, np.random.default_rng(index))
        return {**_tensors(window, self.size), 'source': torch.tensor(source)}


def _tensors(window: Window, size: tuple[int, int]) -> dict[str, Tensor]:
    """What a batch holds of a window: of this size, as seen at the trained focal length."""
    window = window.of_shape(*size).at_trained_focal().resized(*size)
    return {
        'rgb': torch.from_numpy(np.ascontiguousarray(window.rgb)),
        'depth_m': torch.from_numpy(window.depth_m),
    }
