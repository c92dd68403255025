# SPDX-License-Identifier: Apache-2.0
"""What looks like floor, by what the encoder says of each patch.

A table top that fills the picture has the geometry of a floor that is too near; to the encoder it
is another thing. A linear function of the features of one level tells the two apart, as far as it
has seen such floors and such tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FloorLooks:
    """Log odds that a patch is floor: ``weights`` (C,) times its features, and ``bias``.

    They are of the features of the encoder's ``level``, counted from 0 among those that are
    decoded, of pictures ``input_height`` pixels high.
    """

    level: int
    weights: Tensor
    bias: float
    input_height: int

    def __call__(self, tokens: Tensor) -> Tensor:
        """Give the log odds (B, N), in float32, of tokens (B, 1 + N, C) of the level."""
        patches = tokens[:, 1:].float()
        return torch.matmul(patches, self.weights.to(patches.device)) + self.bias
