# SPDX-License-Identifier: Apache-2.0
"""Training data as one long stream that can be entered at any step."""

from __future__ import annotations

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.data.clips import augmented
from training.data.nyu import NyuWindows
from training.data.room import RoomWindows, room_window, unseen_room

_VALIDATION_ROOMS = 12


class WindowStream(Dataset):
    """Sample i is a pure function of (seed, i), whichever process asks and when."""

    def __init__(
        self,
        *,
        seed: int,
        size: tuple[int, int],
        window: int,
        strides: tuple[int, int],
        room_share: float,
        nyu_root: str | None,
    ) -> None:
        self.seed = seed
        self.size = size
        self.window = window
        self.strides = strides
        self.room_share = room_share
        self.rooms = RoomWindows(height=size[0], width=size[1], strides=strides)
        self.nyu = NyuWindows(nyu_root, part='train') if room_share < 1 else None

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        if self.nyu is None or rng.random() < self.room_share:
            window = self.rooms.window(rng, self.window, index=index)
            window = augmented(window, rng, least_crop=0.85)
        else:
            stride = int(rng.integers(self.strides[0], self.strides[1] + 1))
            window = augmented(self.nyu.window(rng, self.window, stride), rng)
        window = window.resized(*self.size).at_trained_focal()
        return {'rgb': torch.from_numpy(window.rgb), 'depth_m': torch.from_numpy(window.depth_m)}


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


class ValidationWindows(Dataset):
    """A fixed set: windows in rooms never trained on and in held-out blocks of NYUv2."""

    def __init__(
        self, *, size: tuple[int, int], window: int, stride: int, nyu: NyuWindows | None
    ) -> None:
        self.size = size
        self.window = window
        self.stride = stride
        self.nyu = nyu

    def __len__(self) -> int:
        return _VALIDATION_ROOMS * (2 if self.nyu is None else 4)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        source, number = divmod(index, 2 * _VALIDATION_ROOMS)
        if self.nyu is None or source == 0:
            room = unseen_room(number // 2, height=self.size[0], width=self.size[1])
            window = room_window(room, 300 * (number % 2), self.window, self.stride)
        else:
            rng = np.random.default_rng(index)
            window = self.nyu.window(rng, self.window, 1).resized(*self.size)
        return {
            'rgb': torch.from_numpy(window.rgb),
            'depth_m': torch.from_numpy(window.depth_m),
            'source': torch.tensor(source),
        }


class WindowData(lightning.LightningDataModule):
    """Rooms and NYUv2 clips, mixed.

    ``size`` is (height, width) in pixels; windows have ``window`` frames, each ``strides`` (least,
    most) frames after the one before; ``room_share`` of them show rooms, the others NYUv2 from
    ``nyu_root`` (default: the environment variable NYU_ROOT).
    """

    def __init__(
        self,
        size: tuple[int, int] = (224, 294),
        window: int = 1,
        strides: tuple[int, int] = (1, 5),
        room_share: float = 0.5,
        nyu_root: str | None = None,
        batch_size: int = 16,
        num_workers: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= room_share <= 1:
            raise ValueError(f'room_share: expected 0 to 1, got {room_share}')
        if window < 1 or not 1 <= strides[0] <= strides[1]:
            raise ValueError(f'expected window >= 1 and 1 <= strides, got {window} and {strides}')
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.stream = WindowStream(
            seed=seed,
            size=size,
            window=window,
            strides=strides,
            room_share=room_share,
            nyu_root=nyu_root,
        )
        nyu = NyuWindows(nyu_root, part='val') if room_share < 1 else None
        self.validation = ValidationWindows(size=size, window=window, stride=3, nyu=nyu)

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        if trainer is None or trainer.max_steps < 1:
            raise ValueError('the stream is endless: expected trainer.max_steps of at least 1')
        per_step = self.batch_size * trainer.accumulate_grad_batches * trainer.world_size
        return DataLoader(
            self.stream,
            batch_size=self.batch_size,
            sampler=FromStep(
                trainer.global_step * per_step,
                trainer.max_steps * per_step,
                batch=self.batch_size,
                rank=trainer.global_rank,
                world=trainer.world_size,
            ),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, batch_size=self.batch_size)
