# SPDX-License-Identifier: Apache-2.0
"""What is kept of the last frames of some cameras: tensors alone, replaced whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TemporalState:
    """What the next frame needs of the last K ones, for a batch of B cameras.

    ``levels`` are their features (B, K, 1 + N, C), the newest first, in half precision; ``known``
    (B, K) says which of them there are and ``travelled`` (B, K, 2) how far, as (dx, dy) in
    patches, the picture moved from each to the newest. ``spectrum`` is the transform of the
    newest grey image. Where ``valid`` (B,) is False a camera has no previous frame, whatever the
    rest says. ``shift_px`` (B, 2), (dx, dy) in pixels of the frame, and ``confidence`` (B,) tell
    what was measured on the way to this state, zero at a first frame.
    """

    levels: tuple[Tensor, ...]
    known: Tensor
    travelled: Tensor
    spectrum: Tensor
    valid: Tensor
    shift_px: Tensor
    confidence: Tensor
    frame_size: tuple[int, int]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        named = (self.known, self.travelled, self.spectrum, self.valid)
        return *self.levels, *named, self.shift_px, self.confidence

    @property
    def recallable(self) -> Tensor:
        """Which of the remembered frames (B, K) there are."""
        return self.known & self.valid[:, None]

    @property
    def forgotten(self) -> TemporalState:
        """The same, of which nothing counts: what comes next is a first frame."""
        return replace(self, valid=torch.zeros_like(self.valid))

    def check_followed_by(self, batch: int, frame_size: tuple[int, int]) -> None:
        """Raise ValueError where other frames follow than the state is of."""
        if self.frame_size != frame_size or len(self.valid) != batch:
            raise ValueError(
                f'expected frames like those of the state, {len(self.valid)} of '
                f'{self.frame_size}, got {batch} of {frame_size}; start afresh with state=None'
            )

    def each(self, change: Callable[[Tensor], Tensor]) -> TemporalState:
        """Give the state of the same frames with every tensor changed."""
        return self.with_tensors([change(tensor) for tensor in self.tensors])

    def with_tensors(self, tensors: Sequence[Tensor]) -> TemporalState:
        *levels, known, travelled, spectrum, valid, shift_px, confidence = tensors
        return TemporalState(
            levels=tuple(levels),
            known=known,
            travelled=travelled,
            spectrum=spectrum,
            valid=valid,
            shift_px=shift_px,
            confidence=confidence,
            frame_size=self.frame_size,
        )

    @staticmethod
    def join(cameras: Sequence[CameraState | None]) -> TemporalState | None:
        """Make one batch of cameras' states; ``None`` stands for a first frame.

        Cameras that are all of one batch, in its order, get it as it is: nothing is copied.
        """
        there = next((camera for camera in cameras if camera is not None), None)
        if there is None:
            return None
        batch = there.batch
        if [_place(camera) for camera in cameras] == [_place(camera) for camera in batch.split()]:
            return batch
        parts = [(there.cut.forgotten if one is None else one.cut).tensors for one in cameras]
        return batch.with_tensors([torch.cat(tensors) for tensors in zip(*parts, strict=True)])

    def split(self) -> list[CameraState]:
        """Give the states of the single cameras."""
        return [CameraState(self, row) for row in range(len(self.valid))]


@dataclass(frozen=True, eq=False)
class CameraState:
    """The state of one camera, as a row of a batch's; it keeps the whole batch's alive."""

    batch: TemporalState
    row: int

    @property
    def cut(self) -> TemporalState:
        """The row as a batch of one, which lies where the whole batch does."""
        return self.batch.each(lambda tensor: tensor[self.row : self.row + 1])

    @property
    def alone(self) -> CameraState:
        """The same without the rest of the batch."""
        if len(self.batch.valid) == 1:
            return self
        return CameraState(self.cut.each(torch.clone), 0)


def _place(camera: CameraState | None) -> tuple[int, int] | None:
    return None if camera is None else (id(camera.batch), camera.row)
