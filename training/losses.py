# SPDX-License-Identifier: Apache-2.0
"""Losses on depth in metres; NaN in the truth marks pixels without one."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

_LEAST_DEPTH_M = 0.1  # a logarithm of less would drown all other pixels


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts, 0 to leave it out.

    ``original`` is SmoothDINOv2's regulariser: the squared distance from the depth that the model
    gives without its adapter. ``scale_change`` is the temporal one.
    """

    mse: float = 1.0
    original: float = 0.0
    silog: float = 0.0
    gradient: float = 0.0
    scale_change: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) >= 0:
                raise ValueError(
                    f'loss.{field.name}: expected 0 or more, got {getattr(self, field.name)}'
                )
        if not any(vars(self).values()):
            raise ValueError('loss: expected at least one weight above 0, got none')


def masked_mse(depth_m: Tensor, truth_m: Tensor) -> Tensor:
    """Mean squared error in m² over valid pixels, 0 where there are none."""
    valid = truth_m.isfinite()
    return _valid_mean((depth_m - torch.where(valid, truth_m, 0)).square(), valid)


def log_ratio(depth_m: Tensor, truth_m: Tensor) -> Tensor:
    """log(depth / truth), NaN where the truth is invalid, without a gradient there."""
    valid = truth_m.isfinite()
    ratio = depth_m.clamp(min=_LEAST_DEPTH_M).log() - torch.where(valid, truth_m, 1).log()
    return torch.where(valid, ratio, torch.nan)


def scale_invariant_log(depth_m: Tensor, truth_m: Tensor, *, invariance: float = 0.5) -> Tensor:
    """Scale-invariant log error of Eigen et al. 2014 of maps (..., H, W).

    ``invariance`` 0 counts an error of scale in full, 1 not at all. Maps without truth don't
    count.
    """
    ratio = log_ratio(depth_m, truth_m).flatten(-2)
    valid = ratio.isfinite()
    squares = _valid_mean(ratio.square(), valid, dim=-1)
    error = squares - invariance * _valid_mean(ratio, valid, dim=-1).square()
    return _valid_mean(error, valid.any(-1))


def gradient_matching(depth_m: Tensor, truth_m: Tensor, *, scales: int = 3) -> Tensor:
    """Mean |gradient of log(depth / truth)| over scales (MegaDepth, Li and Snavely 2018)."""
    ratio = log_ratio(depth_m, truth_m)
    total = ratio.new_zeros(())
    for scale in range(scales):
        step = 2**scale
        for dim in (-1, -2):
            slope = ratio[..., ::step, ::step].diff(dim=dim)
            valid = slope.isfinite()
            total = total + _valid_mean(torch.where(valid, slope, 0).abs(), valid)
    return total / scales


def scale_change(depth_m: Tensor, truth_m: Tensor) -> Tensor:
    """Mean |change of the mean log(depth / truth)| between consecutive frames (B, T, H, W).

    The differentiable sibling of flicker, which takes the median.
    """
    ratio = log_ratio(depth_m, truth_m).flatten(-2)
    valid = ratio.isfinite()
    scale = _valid_mean(ratio, valid, dim=-1)  # (B, T)
    known = valid.any(-1)
    return _valid_mean(scale.diff(dim=1).abs(), known[:, 1:] & known[:, :-1])


def _valid_mean(values: Tensor, valid: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the valid values, 0 without any; torch.nanmean has NaN as its gradient there."""
    return torch.where(valid, values, 0).sum(dim) / valid.sum(dim).clamp(min=1)
