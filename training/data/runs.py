# SPDX-License-Identifier: Apache-2.0
"""Which frames of clips belong together, for training or kept from it, and windows out of them.

Split files are SmoothDINOv2's: a list of ``[scene, i]``, each the frame i + 1 with the one before.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.clips import Clip, Window

_log = logging.getLogger(__name__)

PARTS = ('train', 'val')
_MAX_GAP_NS = 1_000_000_000  # as the node's max_gap_s: after it the previous frame says nothing
_LEAST_BLOCK = 10  # frames; the rest of a clip is too short for a block
_ATTEMPTS, _AWAY = 8, 1009  # at a readable window; the next one tried is not a neighbour


@dataclass(frozen=True)
class Run:
    """Frames of a clip, positions ``start`` to ``stop`` - 1, each right after the one before."""

    clip: Clip
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, stride: int = 1) -> Window:
        return self.clip.read(range(self.start, self.stop, stride))


def whole_runs(clips: Iterable[Clip]) -> list[Run]:
    """Cut clips where a number is missing, a stamp goes back or more than a second goes by."""
    runs = []
    for clip in clips:
        cuts = [p for p in range(1, len(clip)) if not follows(clip, p)]
        edges = [0, *cuts, len(clip)]
        runs += [Run(clip, start, stop) for start, stop in itertools.pairwise(edges)]
    return runs


def follows(clip: Clip, position: int) -> bool:
    """Tell whether the frame at a position is the next one after the frame before it."""
    if clip.numbers[position] != clip.numbers[position - 1] + 1:
        return False
    if clip.stamps_ns is None:
        return True
    return 0 < clip.stamps_ns[position] - clip.stamps_ns[position - 1] <= _MAX_GAP_NS


def block_runs(clips: Iterable[Clip], *, part: str, block: int = 20, margin: int = 3) -> list[Run]:
    """Give contiguous blocks of frames, every fifth of ``block`` frames for validation.

    Training leaves out ``margin`` frames on each side of a held-out block, because neighbouring
    frames show nearly the same: both are for NYUv2, whose frames are a third of a second apart.
    """
    if part not in PARTS:
        raise ValueError(f"part: expected 'train' or 'val', got {part!r}")
    if block < _LEAST_BLOCK or not 0 <= 2 * margin <= block - _LEAST_BLOCK:
        raise ValueError(
            f'expected a block of at least {_LEAST_BLOCK} frames besides its margins, got {block} '
            f'and {margin}'
        )
    runs = []
    for run in whole_runs(clips):
        for number, first in enumerate(range(0, len(run), block)):
            last = first + block
            held_out = number % 5 == 4
            if held_out != (part == 'val'):
                continue
            if not held_out:  # keep away from the held-out neighbours
                first += margin if number and (number - 1) % 5 == 4 else 0
                last -= margin if (number + 1) % 5 == 4 else 0
            last = min(last, len(run))
            if last - first >= _LEAST_BLOCK:
                runs.append(Run(run.clip, run.start + first, run.start + last))
    if not runs:
        raise ValueError(
            f'expected clips of five blocks of {block} frames, one of them for validation: choose '
            'smaller blocks, or divide by split files (training.split)'
        )
    return runs


def listed_runs(clips: Iterable[Clip], list_file: str | Path) -> list[Run]:
    """Give the frames that a split file lists; entries that follow each other join to one run.

    As in the published code, i is the previous frame, i + 1 the current one and entries with i of
    1 or less are dropped. Entries whose frames are not there are counted and left out. A longer
    window lies within listed entries only, so that it shows no pair of frames from the other list.
    Raises ``ValueError`` where a file is not of this format or nothing of it is there.
    """
    clip_of = clips_by_scene(clips)
    runs: list[Run] = []
    absent = dropped = out_of_time = 0
    for scene, numbers in read_list(list_file).items():
        clip = clip_of.get(scene)
        position_of = {n: p for p, n in enumerate(clip.numbers)} if clip else {}
        for i in sorted(numbers):
            current = position_of.get(i + 1)
            if i <= 1:
                dropped += 1
            elif clip is None or current is None or i not in position_of:
                absent += 1
            elif not follows(clip, current):  # a second or more apart
                out_of_time += 1
            elif runs and runs[-1].clip is clip and runs[-1].stop == current:
                runs[-1] = Run(clip, runs[-1].start, current + 1)
            else:
                runs.append(Run(clip, current - 1, current + 1))
    taken = sum(len(run) - 1 for run in runs)
    _log.info(
        '%s: %d pairs of frames; left out: %d whose frames are not there, %d too far apart in '
        'time, %d with i of 1 or less',
        *(list_file, taken, absent, out_of_time, dropped),
    )
    if not runs:
        raise ValueError(
            f'{list_file}: expected frames that are in the clips, got {absent} entries without '
            f'theirs and {dropped} with i of 1 or less'
        )
    return runs


def clips_by_scene(clips: Iterable[Clip]) -> dict[str, Clip]:
    """Name each clip as split files do: by its folder or, where that is not unique, its path."""
    named = defaultdict(list)
    for clip in clips:
        named[clip.name.rpartition('/')[2]].append(clip)
    return {
        (folder if len(same) == 1 else clip.name): clip
        for folder, same in named.items()
        for clip in same
    }


def read_list(path: str | Path) -> dict[str, set[int]]:
    """Read the i of each scene from a split file."""
    numbers = defaultdict(set)
    try:
        for scene, i in json.loads(Path(path).read_text(encoding='utf-8')):
            if not isinstance(scene, str) or type(i) is not int:
                raise ValueError(f'got {[scene, i]!r:.80}')
            numbers[scene].add(i)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f'{path}: expected a split file, [["scene", i], …] in JSON: {error}'
        ) from None
    return numbers


class RunWindows:
    """All windows of ``length`` frames in runs, counted by where they start.

    ``strides`` are the least and most positions from one frame to the next. Runs too short for
    the least are left out and counted; a longer stride that does not fit is shortened.
    """

    def __init__(self, runs: list[Run], *, length: int, strides: tuple[int, int]) -> None:
        self.length = length
        self.strides = strides
        reach = (length - 1) * strides[0]
        self.runs = [run for run in runs if len(run) > reach]
        if not self.runs:
            raise ValueError(
                f'expected runs of more than {reach} consecutive frames for windows of {length} '
                f'with a stride of {strides[0]}, got at most {max(map(len, runs), default=0)}'
            )
        if len(self.runs) < len(runs):
            _log.info(
                '%d of %d runs of frames are too short for %d frames with a stride of %d',
                *(len(runs) - len(self.runs), len(runs), length, strides[0]),
            )
        self._ends = np.cumsum([len(run) - reach for run in self.runs])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def odds(self, share: float | None) -> np.ndarray:
        """How often each window is to be drawn, beside those of other sources.

        All alike without a ``share``; with it so that they add up to it, and each clip gives
        windows by the square root of how many it has.
        """
        if share is None:
            return np.ones(len(self))
        counts = np.diff(self._ends, prepend=0)
        names, clip_of = np.unique([run.clip.name for run in self.runs], return_inverse=True)
        of_clip = np.bincount(clip_of, weights=counts, minlength=len(names))
        odds = np.repeat(of_clip[clip_of] ** -0.5, counts)
        return share * odds / odds.sum()

    def window(self, number: int, rng: np.random.Generator) -> Window:
        """Read window ``number``, with a stride drawn from the range.

        Where a file turns out to be damaged or a frame has no depth at all, another window is read
        instead, always the same, and the log says so. Raises ``ValueError`` after a few of these.
        """
        stride = int(rng.integers(self.strides[0], self.strides[1] + 1))
        for attempt in range(_ATTEMPTS):
            positions, clip = self._positions((number + attempt * _AWAY) % len(self), stride)
            try:
                window = clip.read(positions)
                if np.isfinite(window.depth_m).any(axis=(1, 2)).all():
                    return window
                reason = 'a frame without any depth'
            except ValueError as error:
                reason = str(error)
            _log.warning('%s, %s: left out: %s', clip.name, positions, reason)
        raise ValueError(f'{clip.name}: expected frames with depth, got {_ATTEMPTS} times none')

    def _positions(self, number: int, stride: int) -> tuple[range, Clip]:
        which = int(np.searchsorted(self._ends, number, side='right'))
        run = self.runs[which]
        start = number - (int(self._ends[which - 1]) if which else 0)
        if self.length > 1:  # alone, a frame has no next one
            stride = min(stride, (len(run) - 1) // (self.length - 1))
        reach = (self.length - 1) * stride
        first = run.start + min(start, len(run) - 1 - reach)
        return range(first, first + reach + 1, stride), run.clip
