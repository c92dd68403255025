# SPDX-License-Identifier: Apache-2.0
"""Losses on depth in metres; NaN in the truth marks pixels without one."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_DEPTH_M = 0.1  # a logarithm of less would drown all other pixels


def masked_mse(depth_m: Tensor, truth_m: Tensor) -> Tensor:
    """Mean squared error in m² over valid pixels."""
    valid = truth_m.isfinite()
    return (depth_m - truth_m)[valid].square().mean()


def log_ratio(depth_m: Tensor, truth_m: Tensor) -> Tensor:
    """log(depth / truth), NaN where the truth is invalid, without a gradient there."""
    valid = truth_m.isfinite()
    ratio = depth_m.clamp(min=_LEAST_DEPTH_M).log() - torch.where(valid, truth_m, 1).log()
    return torch.where(valid, ratio, torch.nan)


def scale_invariant_log(depth_m: Tensor, truth_m: Tensor, *, invariance: float = 0.5) -> Tensor:
    """Scale-invariant log error of Eigen et al. 2014 of maps (..., H, W).

    ``invariance`` 0 counts an error of scale in full, 1 not at all.
    """
    ratio = log_ratio(depth_m, truth_m).flatten(-2)
    return (ratio.square().nanmean(-1) - invariance * ratio.nanmean(-1).square()).mean()


def gradient_matching(depth_m: Tensor, truth_m: Tensor, *, scales: int = 3) -> Tensor:
    """Mean |gradient of log(depth / truth)| over scales (MegaDepth, Li and Snavely 2018)."""
    ratio = log_ratio(depth_m, truth_m)
    total = ratio.new_zeros(())
    for scale in range(scales):
        step = 2**scale
        part = ratio[..., ::step, ::step]
        total = total + part.diff(dim=-1).abs().nanmean() + part.diff(dim=-2).abs().nanmean()
    return total / scales


def scale_change(depth_m: Tensor, truth_m: Tensor) -> Tensor:
    """Mean |change of the mean log(depth / truth)| between consecutive frames (B, T, H, W).

    The differentiable sibling of flicker, which takes the median.
    """
    scale = log_ratio(depth_m, truth_m).flatten(-2).nanmean(-1)  # (B, T)
    return scale.diff(dim=1).abs().mean()
