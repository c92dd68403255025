# SPDX-License-Identifier: Apache-2.0
"""Training data as one long stream that can be entered at any step."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import cv2
import lightning
import numpy as np
from torch.utils.data import DataLoader, Sampler

from training.data.clips import Clip, find_clips
from training.data.datasets import ValidationWindows, WindowStream
from training.data.room import RoomWindows
from training.data.runs import Run, RunWindows, block_runs, listed_runs, read_list, whole_runs


@dataclass(frozen=True)
class WindowShape:
    """Pictures of ``size`` (height, width) in pixels, ``frames`` of them in a window.

    Each is ``strides`` (least, most) frames after the one before, in clips as their source says.
    """

    size: tuple[int, int] = (224, 294)
    frames: int = 1
    strides: tuple[int, int] = (1, 5)

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f'size: expected a height and a width in pixels, got {self.size}')
        if self.frames < 1:
            raise ValueError(f'frames: expected at least 1, got {self.frames}')
        _check_strides(self.strides)


@dataclass(frozen=True)
class ClipSource:
    """Clips in ``root`` (default: the folder that the environment variable NYU_ROOT names).

    ``root`` may name environment variables ($CLIPS_ROOT). Clips whose names match one of the
    patterns ``leave_out`` are not read, and ``rim_px`` pixels at each side of the pictures are cut
    off: those of NYUv2 have a white rim. Without ``validate`` all frames are trained on.

    Divided by the split files ``train_list`` and ``val_list``, which may lie in the root, or,
    without them, into blocks, every fifth ``block`` of frames kept from training with a ``margin``
    of frames around it. Those of NYUv2 are a third of a second apart: clips of 30 Hz want ten
    times as many in both. ``strides``
    (least, most) frames lie between two frames of a window.

    ``share`` is how much this source counts in the mixture, beside what the others say; its clips
    then count by the square root of their lengths, so that a place seen for long does not drown
    those seen once. By default each frame counts alike.
    """

    root: str | None = None
    train_list: str | None = None
    val_list: str | None = None
    block: int = 20
    margin: int = 3
    strides: tuple[int, int] | None = None
    leave_out: tuple[str, ...] = ()
    rim_px: int = 0
    validate: bool = True
    share: float | None = None

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share < math.inf:
            raise ValueError(f'share: expected more than 0, got {self.share}')
        if (self.train_list is None) != (self.val_list is None):
            raise ValueError('expected both train_list and val_list, or none, got one of them')
        if self.strides:
            _check_strides(self.strides)

    @property
    def name(self) -> str:
        return self.folder.name if self.root else 'nyu'

    @property
    def folder(self) -> Path:
        root = os.path.expandvars(self.root or '$NYU_ROOT')
        if root.startswith('$'):
            raise ValueError(f'expected a folder with clips: give its root or set {root[1:]}')
        return Path(root)

    def clips(self) -> list[Clip]:
        kept = [
            replace(clip, rim_px=self.rim_px)
            for clip in find_clips(self.folder)
            if not any(fnmatch(clip.name, pattern) for pattern in self.leave_out)
        ]
        if not kept:
            raise ValueError(f'{self.folder}: expected clips besides {self.leave_out}, got none')
        return kept

    def runs(self, clips: list[Clip], *, part: str, window: int) -> list[Run]:
        """Give the frames for ``part`` 'train' or 'val', to cut windows of ``window`` frames from.

        Raises ``ValueError`` where the split files have entries in common.
        """
        if not self.validate:
            return whole_runs(clips) if part == 'train' else []
        if self.train_list is None or self.val_list is None:
            return block_runs(clips, part=part, block=self.block, margin=self.margin)
        given = {'train': Path(self.train_list), 'val': Path(self.val_list)}
        lists = {k: file if file.exists() else self.folder / file for k, file in given.items()}
        other = read_list(lists['val' if part == 'train' else 'train'])
        shared = sum(len(i & other[scene]) for scene, i in read_list(lists[part]).items())
        if shared:
            raise ValueError(
                f'expected split files without entries in common, got {shared} in both '
                f'{self.train_list} and {self.val_list}'
            )
        runs = listed_runs(clips, lists[part])
        if window > 1:
            return runs
        # Alone, the frame before the first listed one belongs to the other list.
        return [Run(run.clip, run.start + 1, run.stop) for run in runs]

    def windows(self, shape: WindowShape, *, part: str) -> RunWindows | None:
        """Give the windows for ``part``, None without any; those for 'val' are of one stride."""
        runs = self.runs(self.clips(), part=part, window=shape.frames)
        if not runs:
            return None
        least, most = self.strides or shape.strides
        if part == 'val':
            least = most = (least + most) // 2
        return RunWindows(runs, length=shape.frames, strides=(least, most))


class FromStep(Sampler[int]):
    """Indices from ``first`` to ``last``, batch by batch in turn to each of ``world`` processes.

    A resumed run so goes on where the last one stopped. Its length is that of the whole run:
    Lightning counts the batches before the interruption in.
    """

    def __init__(
        self, first: int, last: int, *, batch: int = 1, rank: int = 0, world: int = 1
    ) -> None:
        self.first = first
        self.last = last
        self.batch = batch
        self.rank = rank
        self.world = world

    def __iter__(self):
        for start in range(
            self.first + self.rank * self.batch, self.last, self.world * self.batch
        ):
            yield from range(start, start + self.batch)

    def __len__(self) -> int:
        return self.last // self.world


def _check_strides(strides: tuple[int, int]) -> None:
    if not 1 <= strides[0] <= strides[1]:
        raise ValueError(f'strides: expected 1 <= least <= most, got {strides}')


class WindowData(lightning.LightningDataModule):
    """Rooms and clips, mixed.

    ``room_share`` of the windows show rooms, the others ``clips`` (default: NYUv2 in NYU_ROOT),
    whose windows all come equally often.
    ``augment`` crops, mirrors and recolours, with ``variants`` in so many ways for each window of
    a clip, so that ``model.features`` can keep them. With ``epochs`` the training ends after so
    many passes through the clips, otherwise at ``trainer.max_steps``. Validation takes
    ``val_windows`` of each source.

    Batches hold 'rgb' uint8 (B, T, H, W, 3) and 'depth_m' (B, T, H, W), NaN where it is unknown,
    as seen at the trained focal length; in validation also 'source' (B,), indices of ``sources``.
    """

    def __init__(
        self,
        windows: WindowShape = WindowShape(),
        room_share: float = 0.5,
        clips: list[ClipSource] | None = None,
        augment: bool = True,
        variants: int = 0,
        epochs: int | None = None,
        val_windows: int = 24,
        batch_size: int = 16,
        num_workers: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        found = [] if room_share == 1 else [ClipSource()] if clips is None else clips
        if not 0 <= room_share <= 1 or (room_share < 1 and not found):
            raise ValueError(f'room_share: expected 0 to 1, and 1 without clips, got {room_share}')
        for name, number in (('val_windows', val_windows), ('epochs', epochs)):
            if number is not None and number < 1:
                raise ValueError(f'{name}: expected at least 1, got {number}')
        if epochs and not found:
            raise ValueError('epochs: rooms have no end, expected clips or trainer.max_steps')
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.augment = augment
        self.epochs = epochs
        self.sources = ['room'] * (room_share > 0) + [
            source.name for source in found if source.validate
        ]
        train = [
            (kept, one.share) for one in found if (kept := one.windows(windows, part='train'))
        ]
        if len({share is None for _, share in train}) > 1:
            raise ValueError('share: expected one for each source of clips, or for none')
        val = [kept for one in found if (kept := one.windows(windows, part='val'))]
        height, width = windows.size
        rooms = RoomWindows(
            height=height,
            width=width,
            length=windows.frames,
            strides=windows.strides,
            seed=seed,
        )
        self.stream = WindowStream(
            seed=seed,
            size=windows.size,
            rooms=rooms if room_share else None,
            clips=[kept for kept, _ in train],
            odds=np.concatenate([kept.odds(share) for kept, share in train] or [np.empty(0)]),
            room_share=room_share,
            batch=batch_size,
            augment=augment,
            variants=variants,
        )
        self.validation = ValidationWindows(
            size=windows.size,
            each=val_windows,
            room=(windows.frames, sum(windows.strides) // 2) if room_share else None,
            clips=val,
        )

    def steps(self, trainer: lightning.Trainer) -> int:
        """Give the optimizer steps of the whole training.

        With epochs they are rounded down so that validations within it fall on whole steps.
        """
        limits = [trainer.max_steps] if trainer.max_steps >= 1 else []
        if self.epochs:
            samples = self.epochs * self.stream.n_clip_windows / (1 - self.stream.room_share)
            steps = int(samples) // self._per_step(trainer)
            interval = trainer.val_check_interval
            checks = round(1 / interval) if isinstance(interval, float) else 1
            limits.append(steps - steps % checks if steps > checks else steps)
        if not limits or min(limits) < 1:
            raise ValueError(
                f'expected trainer.max_steps or data.epochs for at least one step, got {limits}'
            )
        return min(limits)

    def _per_step(self, trainer: lightning.Trainer) -> int:
        return self.batch_size * trainer.accumulate_grad_batches * trainer.world_size

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        if trainer is None:
            raise ValueError('expected a trainer, which knows where the stream is entered')
        per_step = self._per_step(trainer)
        return DataLoader(
            self.stream,
            batch_size=self.batch_size,
            sampler=FromStep(
                trainer.global_step * per_step,
                self.steps(trainer) * per_step,
                batch=self.batch_size,
                rank=trainer.global_rank,
                world=trainer.world_size,
            ),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_one_thread,
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, batch_size=self.batch_size)


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)  # torch sees to its own: each worker is to take one core
