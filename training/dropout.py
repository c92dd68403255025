# SPDX-License-Identifier: Apache-2.0
"""Features that a decoder is to do without, so that it does not learn its few places by heart."""

from __future__ import annotations

import torch
from torch import Tensor


def dropped(levels: tuple[Tensor, ...], part: float, *, seed: int) -> tuple[Tensor, ...]:
    """Take from ``part`` of the channels of tokens (B, T, 1 + N, C) what they say.

    Which channels differs from level to level, from frame to frame and from the patches to the
    class token, which knows the place best: as large a part of these goes as a whole. What is
    dropped becomes the mean over the batch, not zero: the channels of DINOv2 lie far from zero.
    """
    chance = torch.Generator().manual_seed(seed)
    return tuple(_dropped(level, part, chance) for level in levels)


def _dropped(tokens: Tensor, part: float, chance: torch.Generator) -> Tensor:
    def kept(*shape: int) -> Tensor:
        return (torch.rand(shape, generator=chance) >= part).to(tokens.device)

    batch, length, _, channels = tokens.shape
    class_token, patches = tokens[:, :, :1], tokens[:, :, 1:]
    class_kept = kept(batch, length, 1, channels) & kept(batch, length, 1, 1)
    patches_kept = kept(batch, length, 1, channels)
    return torch.cat(
        (
            torch.where(class_kept, class_token, class_token.mean((0, 1, 2))),
            torch.where(patches_kept, patches, patches.mean((0, 1, 2))),
        ),
        dim=2,
    )
