# SPDX-License-Identifier: Apache-2.0
"""What a CUDA graph does, on the CPU: the work again, from and to the same memory."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class RepeatedWork:
    """Stands for a ``Recording``; its work writes anew, over what it gave, at each replay."""

    def __init__(
        self,
        work: Callable[[], Sequence[Tensor]],
        device: torch.device,
        beside: 'RepeatedWork | None' = None,
    ) -> None:
        self.device, self.beside = device, beside
        self.replays = 0
        self._work = work
        self.made = [one.clone() for one in work()]

    def replay(self) -> None:
        self.replays += 1
        for kept, came in zip(self.made, self._work(), strict=True):
            kept.copy_(came)
