# SPDX-License-Identifier: Apache-2.0
"""Several tensors in one piece of memory, which one copy copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNED = 16  # bytes; GPUs read as many at once


def in_one_piece(tensors: Sequence[Tensor]) -> Tensor:
    """Give the bytes of tensors of one device, of whatever types, as one tensor of uint8."""
    gap = tensors[0].new_empty(_ALIGNED, dtype=torch.uint8)
    parts = []
    for tensor in tensors:
        parts += [tensor.flatten().view(torch.uint8), gap[: -tensor.nbytes % _ALIGNED]]
    return torch.cat(parts)


def parts_of(piece: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Give the tensors, of the types and shapes of ``like``, that lie in a piece."""
    sizes = [-(-one.nbytes // _ALIGNED) * _ALIGNED for one in like]
    return [
        part[: one.nbytes].view(one.dtype).view(one.shape)
        for part, one in zip(piece.split(sizes), like, strict=True)
    ]
