# SPDX-License-Identifier: Apache-2.0
"""What is evaluated on: stretches of consecutive frames, read a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np

from smoothdino_model.recordings.frames import is_of_one_shape
from training.data.clips import Clip, Window, find_clips, with_floors
from training.data.room import SHOWINGS, RoomWindows, room_window, unseen_room
from training.data.runs import Run, block_runs, listed_runs, whole_runs

_MEAN_MAP_FRAMES = 300
_MEAN_MAP_SIZE = (240, 320)  # of clips that are evaluated in whatever size they have


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames of a scene, the first of which is its frame number ``first``.

    ``read`` takes a range of frames counted from the stretch's own beginning. The first
    ``context`` ones are there to be remembered and do not count.
    """

    scene: str
    first: int
    length: int
    read: Callable[[range], Window]
    context: int = 0


@dataclass(frozen=True, eq=False)
class Source:
    """Stretches, and the mean depth map (H, W) of other frames of the kind, if there are any."""

    stretches: list[Stretch]
    mean_map_m: np.ndarray | None


def rooms(
    count: int, *, frames: int, stride: int, size: tuple[int, int], any_mount: bool = False
) -> Source:
    """One ride through each of ``count`` rooms that no training saw.

    With ``any_mount`` at heights and tilts that no training saw, either, so that a mean depth map
    would tell nothing.
    """
    read = partial(_read_room, stride=stride, size=size, any_mount=any_mount)
    stretches = [
        Stretch(f'room_{number}', 0, frames, partial(read, number)) for number in range(count)
    ]
    if any_mount:
        return Source(stretches, None)
    trained_on = RoomWindows(height=size[0], width=size[1])
    drawn = (trained_on.window(SHOWINGS * i) for i in range(_MEAN_MAP_FRAMES))
    return Source(stretches, _mean([window.at_trained_focal().depth_m[0] for window in drawn]))


def nyu(root: str | Path, *, split: Path | None, size: tuple[int, int], rim_px: int = 0) -> Source:
    """The blocks of NYUv2 that our training leaves out, or the frames that a split file lists.

    ``rim_px`` pixels at each side are not looked at: the pictures have a white rim.
    """
    root = Path(root)
    there = find_clips(root / 'nyu2_train' if (root / 'nyu2_train').is_dir() else root)
    found = [replace(clip, rim_px=rim_px) for clip in there]
    if split:
        return _listed(found, split, size)
    stretches = [_of_run(run, size) for run in block_runs(found, part='val')]
    return Source(stretches, _mean_of_runs(block_runs(found, part='train'), size))


def clips(
    root: str | Path,
    *,
    split: Path | None,
    size: tuple[int, int] | None,
    names: Sequence[str] = ('*',),
    bit_depth: int = 0,
    floors: Path | None = None,
) -> Source:
    """All frames of the clips in a folder, or those that a split file lists.

    Only clips whose names match one of the patterns ``names`` count. ``bit_depth`` is as in
    :class:`Clip`. ``floors`` is a file with the floors of clips by their names, told as in
    clip.json, of those whose clip.json does not tell them.
    """
    there = find_clips(root, bit_depth=bit_depth)
    found = [clip for clip in there if any(fnmatch(clip.name, p) for p in names)]
    found = with_floors(found, floors) if floors else found
    if not found:
        raise ValueError(f'{root}: expected clips named {" or ".join(names)}, got none')
    if split:
        return _listed(found, split, size)
    return Source([_of_run(run, size) for run in whole_runs(found)], None)


def _listed(found: list[Clip], split: Path, size: tuple[int, int] | None) -> Source:
    runs = listed_runs(found, split)
    shown = {(run.clip.name, p) for run in runs for p in range(run.start, run.stop)}
    others = [
        Run(clip, p, p + 1)
        for clip in found
        for p in range(len(clip))
        if (clip.name, p) not in shown
    ]
    mean_map_m = _mean_of_runs(others, size) if others else None
    return Source([_of_run(run, size, context=1) for run in runs], mean_map_m)


def _of_run(run: Run, size: tuple[int, int] | None, context: int = 0) -> Stretch:
    return Stretch(run.clip.name, run.start, len(run), partial(_read_run, run, size), context)


def _read_run(run: Run, size: tuple[int, int] | None, frames: range) -> Window:
    window = run.clip.read(range(run.start + frames.start, run.start + frames.stop))
    if size is None:
        return window
    own = window.rgb.shape[1:3]
    if not is_of_one_shape(size, own):
        raise ValueError(
            f'{run.clip.name}: expected a size of the shape of its frames, {own[0]}x{own[1]}, got '
            f'{size[0]}x{size[1]}: squeezed, they would be of another lens'
        )
    return window.resized(*size)


def _read_room(
    number: int, frames: range, *, stride: int, size: tuple[int, int], any_mount: bool
) -> Window:
    room = unseen_room(number, height=size[0], width=size[1], any_mount=any_mount)
    return room_window(room, frames.start * stride, len(frames), stride)


def _mean_of_runs(runs: list[Run], size: tuple[int, int] | None) -> np.ndarray:
    rng = np.random.default_rng(0)
    depths_m = []
    for _ in range(_MEAN_MAP_FRAMES):
        run = runs[rng.integers(len(runs))]
        position = run.start + int(rng.integers(len(run)))
        window = run.clip.read([position]).at_trained_focal()
        depths_m.append(window.resized(*(size or _MEAN_MAP_SIZE)).depth_m[0])
    return _mean(depths_m)


def _mean(depths_m: list[np.ndarray]) -> np.ndarray:
    """Where no frame knows a pixel, the mean of all the others."""
    known = np.isfinite(depths_m)
    total, count = np.where(known, depths_m, 0).sum(0), known.sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), total.sum() / max(count.sum(), 1))
