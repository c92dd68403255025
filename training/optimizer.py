# SPDX-License-Identifier: Apache-2.0
"""Which optimizer learns how fast, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

Schedule = Literal['cosine', 'constant']


@dataclass(frozen=True)
class OptimizerSettings:
    """The numbers of AdamW.

    The learning rate rises over ``warmup_steps`` and then stays (``constant``) or falls as a
    cosine to zero at the last step. Raises ``ValueError`` for what no optimizer can take.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)  # short trainings: 0.999 forgets too slowly
    schedule: Schedule = 'cosine'
    warmup_steps: int = 100

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise ValueError(
                f'schedule: expected {" or ".join(get_args(Schedule))}, got {self.schedule!r}'
            )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f'learning_rate: expected above 0, got {self.learning_rate}')
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f'weight_decay: expected at least 0, got {self.weight_decay}')
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f'betas: expected from 0 to below 1, got {self.betas}')
        if self.warmup_steps < 0:
            raise ValueError(f'warmup_steps: expected at least 0, got {self.warmup_steps}')

    def optimizer(self, trained: Sequence[nn.Module]) -> torch.optim.Optimizer:
        """Give the optimizer of those parameters of the modules that want a gradient."""
        parameters = [p for module in trained for p in module.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {'params': [p for p in parameters if p.ndim > 1]},
            # Biases and norms do not decay.
            {'params': [p for p in parameters if p.ndim <= 1], 'weight_decay': 0.0},
        ]
        return torch.optim.AdamW(
            groups, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay
        )

    def factor(self, step: int, last: int) -> float:
        """Give what the learning rate is multiplied by at a step, counted from 0, of ``last``."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == 'constant':
            return 1.0
        progress = min(1.0, (step - self.warmup_steps) / max(1, last - self.warmup_steps))
        return 0.5 * (1 + math.cos(math.pi * progress))
