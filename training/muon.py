# SPDX-License-Identifier: Apache-2.0
"""Muon: steps whose singular values are all alike, for networks that start from nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients
_ADAM_RMS = 0.2  # of an AdamW step, so that learning rates mean the same


class Muon(torch.optim.AdamW):
    """AdamW whose groups with ``orthogonal: True`` take Muon's step (Jordan, 2024).

    That is for matrices inside a network: not for embeddings, biases or the last layer. The steps
    are as large as AdamW's (Liu et al., 2025). PyTorch's own works in bfloat16, which processors
    without instructions for it do twenty times slower, and knows no other step beside.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group.get('orthogonal')]
        super().step()
        self.param_groups = groups
        for group in groups:
            if group.get('orthogonal'):
                self._orthogonal_step(group)
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter in group['params']:
            if parameter.grad is not None:
                alike[tuple(parameter.shape)].append((parameter, parameter.grad))
        for shape, pairs in alike.items():
            ahead = []
            for parameter, gradient in pairs:
                state = self.state[parameter]
                if 'momentum' not in state:
                    state['momentum'] = torch.zeros_like(parameter)
                    state['step'] = torch.tensor(0.0)  # AdamW looks for it when it is restored
                momentum = state['momentum'].lerp_(gradient, 1 - _MOMENTUM)
                ahead.append(gradient.lerp(momentum, _MOMENTUM))
            size = group['lr'] * _ADAM_RMS * math.sqrt(max(shape))
            for (parameter, _), step in zip(pairs, orthogonal(torch.stack(ahead)), strict=True):
                parameter.mul_(1 - group['lr'] * group['weight_decay']).sub_(step, alpha=size)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, rows, columns) with singular values of about one, by five Newton steps."""
    a, b, c = _QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def inner_matrices(network: nn.Module) -> list[nn.Parameter]:
    """The matrices of a transformer's layers: what Muon is for."""
    return [p for name, p in network.named_parameters() if p.ndim == 2 and '.layer.' in name]
