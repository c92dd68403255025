# SPDX-License-Identifier: Apache-2.0
"""The features of the last frames, each moved to where the current frame sees it.

A finite memory: it holds what the encoder said of the last frames and nothing that was made of
it, so that no error can feed back and what happened K + 1 frames ago is gone for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smoothdino_model.network.backbone import Features

FRAMES = 2  # remembered where nothing else is asked for; docs/results.md tells why


@dataclass(frozen=True, eq=False)
class Recalled:
    """The sum of what remembered frames say of each token of the current one.

    ``sums`` are (B, 1 + N, C) for each level. ``count`` (B, 1 + N, 1) is how many frames they are
    the sum of: not whole where the border of one runs through a patch, 0 where none saw it.
    """

    sums: tuple[Tensor, ...]
    count: Tensor


def recall(
    levels: Sequence[Tensor],
    known: Tensor,
    travelled: Tensor,
    *,
    grid: tuple[int, int],
    dtype: torch.dtype,
) -> Recalled:
    """Move the ``levels`` (B, K, 1 + N, C) of K frames to the current one, and add them up.

    ``travelled`` (B, K, 2) is (dx, dy) in patches from each frame to the current one; frames that
    are not ``known`` (B, K) count nothing. All patches of a frame move alike, so that moving them
    (bilinearly) is a product with two small matrices, computed in ``dtype``. Class tokens stay in
    their place.
    """
    rows, columns = grid
    counted = known.float()
    down = _moving(rows, travelled[..., 1]) * counted[..., None, None]  # (B, K, to, from)
    right = _moving(columns, travelled[..., 0])
    of_patches = torch.einsum('bky,bkx->byx', down.sum(-1), right.sum(-1)).flatten(1)  # (B, N)
    sums = []
    for level in levels:
        tokens = level.to(dtype)
        patches = tokens[:, :, 1:].unflatten(2, grid)  # (B, K, rows, columns, C)
        moved = torch.einsum('bkij,bkyjc->bkyic', right.to(dtype), patches)
        added = torch.einsum('bkij,bkjxc->bixc', down.to(dtype), moved)
        class_token = torch.einsum('bk,bkc->bc', counted.to(dtype), tokens[:, :, 0])
        sums.append(torch.cat((class_token[:, None], added.flatten(1, 2)), dim=1))
    count = torch.cat((counted.sum(1, keepdim=True), of_patches), dim=1)
    return Recalled(tuple(sums), count[..., None])


def blend(current: Features, recalled: Recalled) -> Features:
    """Give the mean of the current features and all that is recalled of them."""
    levels = tuple(
        ((tokens + total) / (1 + recalled.count)).to(tokens.dtype)
        for tokens, total in zip(current.levels, recalled.sums, strict=True)
    )
    return replace(current, levels=levels)


def _moving(size: int, shift: Tensor) -> Tensor:
    """Give matrices (..., size, size) that move a line by ``shift`` (...); outside is nothing."""
    at = torch.arange(size, device=shift.device)
    distance = at[:, None] - at - shift[..., None, None]  # of where a value goes from each place
    return (1 - distance.abs()).clamp(min=0)
