# SPDX-License-Identifier: Apache-2.0
"""Losses: what they measure, what they are blind to, and that missing truth leaves no trace."""

import math

import pytest
import torch

from training.losses import (
    LossWeights,
    gradient_matching,
    masked_mse,
    scale_change,
    scale_invariant_log,
)

LOSSES = [masked_mse, scale_invariant_log, gradient_matching, scale_change]


def example(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and truth (2, 3, 16, 16) between 1 and 6 m; a tenth of the truth is missing."""
    generator = torch.Generator().manual_seed(seed)
    depth_m, truth_m = 1 + 5 * torch.rand(2, 2, 3, 16, 16, generator=generator)
    truth_m[torch.rand(truth_m.shape, generator=generator) < 0.1] = math.nan
    return depth_m.requires_grad_(), truth_m


def test_losses_by_hand():
    truth_m = torch.full((1, 2, 8, 8), 2.0)
    truth_m[0, 0, 0, 0] = math.nan
    depth_m = truth_m.nan_to_num(7.0) * torch.tensor([1.0, math.e]).view(1, 2, 1, 1)
    expected = (2 * math.e - 2) ** 2 * 64 / 127
    assert masked_mse(depth_m, truth_m).item() == pytest.approx(expected, rel=1e-5)
    assert scale_change(depth_m, truth_m).item() == pytest.approx(1.0, rel=1e-5)
    # Frame 0 is perfect; frame 1 is off by exactly one in the logarithm, and nothing else.
    assert scale_invariant_log(depth_m, truth_m).item() == pytest.approx(0.25, rel=1e-4)
    assert scale_invariant_log(depth_m, truth_m, invariance=1).item() == pytest.approx(0, abs=1e-5)
    assert gradient_matching(depth_m, truth_m).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize('loss', LOSSES)
def test_perfect_depth_costs_nothing(loss):
    _, truth_m = example()
    assert loss(truth_m.nan_to_num(3.0), truth_m).item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize('loss', LOSSES)
def test_pixels_without_truth_count_nowhere(loss):
    depth_m, truth_m = example()
    other_m = torch.where(truth_m.isnan(), 99.0, depth_m.detach())
    assert loss(depth_m, truth_m).item() == loss(other_m, truth_m).item()
    loss(depth_m, truth_m).backward()
    assert depth_m.grad.isfinite().all()
    assert depth_m.grad[truth_m.isnan()].eq(0).all()
    assert depth_m.grad.any()


@pytest.mark.parametrize('loss', LOSSES)
def test_frames_without_any_truth_count_nowhere(loss):
    depth_m, truth_m = example()
    truth_m[1, 2] = math.nan
    with_rest = loss(depth_m, truth_m)
    with_rest.backward()
    assert with_rest.isfinite()
    assert depth_m.grad.isfinite().all()
    nothing = loss(depth_m, torch.full_like(truth_m, math.nan))
    nothing.backward()
    assert nothing.item() == 0
    assert depth_m.grad.isfinite().all()


def test_an_even_error_of_scale_is_steady_and_smooth():
    """The temporal loss and the gradient one are blind to it; the squared one is not."""
    _, truth_m = example()
    depth_m = truth_m.nan_to_num(3.0) * 1.3
    assert scale_change(depth_m, truth_m).item() == pytest.approx(0, abs=1e-6)
    assert gradient_matching(depth_m, truth_m).item() == pytest.approx(0, abs=1e-6)
    assert masked_mse(depth_m, truth_m) > 0.1


def test_a_depth_of_zero_has_a_finite_loss():
    """A fresh network's last ReLU gives just that."""
    _, truth_m = example()
    for loss in LOSSES:
        depth_m = torch.zeros_like(truth_m, requires_grad=True)
        value = loss(depth_m, truth_m)
        value.backward()
        assert value.isfinite()
        assert depth_m.grad.isfinite().all()


@pytest.mark.parametrize(
    ('weights', 'words'),
    [
        ({'silog': -1.0}, 'loss.silog: expected 0 or more, got -1.0'),
        ({'gradient': math.nan}, 'loss.gradient: expected 0 or more, got nan'),
        ({'mse': 0.0}, 'at least one weight above 0'),
    ],
)
def test_weights_check_themselves(weights, words):
    with pytest.raises(ValueError, match=words):
        LossWeights(**weights)
