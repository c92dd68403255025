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
    def join(states: Sequence[TemporalState | None]) -> TemporalState | None:
        """Make one batch of single cameras' states; ``None`` stands for a first frame."""
        there = next((state for state in states if state is not None), None)
        if there is None or len(states) == 1:
            return there
        parts = [(there.forgotten if state is None else state).tensors for state in states]
        return there.with_tensors([torch.cat(tensors) for tensors in zip(*parts, strict=True)])

    def split(self) -> list[TemporalState]:
        """Give the states of the single cameras, each a batch of one."""
        if len(self.valid) == 1:
            return [self]
        # Cloned: a view would keep the whole batch alive for as long as one camera needs it.
        return [
            self.with_tensors([tensor[i : i + 1].clone() for tensor in self.tensors])
            for i in range(len(self.valid))
        ]
