# SPDX-License-Identifier: Apache-2.0
"""The figures of depth, by hand."""

import math

import numpy as np
import pytest

from smoothdino_model import metrics

TRUTH_M = np.array([[1.0, 2.0], [4.0, 5.0]])
DEPTH_M = np.array([[1.0, 1.0], [5.0, 4.0]])  # ratios 1, 2, 1.25, 1.25
FRAME_METRICS = {
    'mse': metrics.mse,
    'rmse': metrics.rmse,
    'abs_rel': metrics.abs_rel,
    'log10': metrics.log10,
    'delta': metrics.delta,
    'scale_error': metrics.scale_error,
}
by_name = pytest.mark.parametrize('metric', FRAME_METRICS.values(), ids=FRAME_METRICS.keys())

BY_HAND = {
    'mse': (metrics.mse, (0 + 1 + 1 + 1) / 4),
    'rmse': (metrics.rmse, math.sqrt(3 / 4)),
    'abs_rel': (metrics.abs_rel, (0 + 1 / 2 + 1 / 4 + 1 / 5) / 4),
    'log10': (metrics.log10, (0 + math.log10(2) + 2 * math.log10(1.25)) / 4),
    'scale_error': (metrics.scale_error, (0 + math.log(4 / 5)) / 2),  # of -.69, -.22, 0, .22
}


@pytest.mark.parametrize(('metric', 'expected'), BY_HAND.values(), ids=BY_HAND.keys())
def test_values_by_hand(metric, expected):
    assert metric(DEPTH_M, TRUTH_M) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(('power', 'share'), [(1, 0.25), (2, 0.75), (3, 0.75), (4, 1.0)])
def test_delta_counts_what_is_strictly_within(power, share):
    """A ratio of exactly 1.25 is outside of the first; 1.25 ** 4 = 2.44."""
    assert metrics.delta(DEPTH_M, TRUTH_M, power=power) == share


def test_delta_is_the_same_for_too_far_and_too_near():
    assert metrics.delta([[1.2]], [[1.0]]) == metrics.delta([[1.0]], [[1.2]]) == 1
    assert metrics.delta([[1.3]], [[1.0]]) == metrics.delta([[1.0]], [[1.3]]) == 0


def test_perfect_depth_is_perfect():
    for metric in FRAME_METRICS.values():
        assert metric(TRUTH_M, TRUTH_M) == (1 if metric is metrics.delta else 0)


@by_name
@pytest.mark.parametrize('hole', [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_pixels_without_truth_do_not_count(metric, hole):
    truth_m = np.append(TRUTH_M, [[hole, hole]], axis=0)
    depth_m = np.append(DEPTH_M, [[99.0, np.nan]], axis=0)
    assert metric(depth_m, truth_m) == pytest.approx(metric(DEPTH_M, TRUTH_M), rel=1e-12)


def test_the_scale_error_is_the_logarithm_of_the_factor():
    assert metrics.scale_error(1.1 * TRUTH_M, TRUTH_M) == pytest.approx(math.log(1.1))
    one_outlier = 1.1 * np.ones((3, 3))
    one_outlier[0, 0] = 1000
    assert metrics.scale_error(one_outlier, np.ones((3, 3))) == pytest.approx(math.log(1.1))


def test_nothing_is_aligned():
    assert metrics.abs_rel(2 * TRUTH_M, TRUTH_M) == 1
    assert metrics.rmse(TRUTH_M + 3, TRUTH_M) == 3


def test_depth_of_zero_counts_as_the_least():
    """A final ReLU gives zeros; their logarithm must not be infinite."""
    for depth in (0.0, -2.0):
        assert metrics.log10([[depth]], [[1.0]]) == pytest.approx(3)
        assert metrics.scale_error([[depth]], [[1.0]]) == pytest.approx(math.log(1e-3))
        assert metrics.delta([[depth]], [[1.0]]) == 0


def test_half_precision_is_summed_in_double():
    truth_m = np.full((480, 640), 8, np.float16)
    assert metrics.mse(truth_m + np.float16(1), truth_m) == 1


def test_flicker_of_a_known_sequence():
    """Scales 1, 1.1, 1, 1.2: what counts is the change from frame to frame."""
    truths_m = [TRUTH_M, 2 * TRUTH_M, TRUTH_M, 3 * TRUTH_M]
    depths_m = [scale * truth_m for scale, truth_m in zip((1, 1.1, 1, 1.2), truths_m, strict=True)]
    expected = (2 * math.log(1.1) + math.log(1.2)) / 3
    assert metrics.flicker(depths_m, truths_m) == pytest.approx(expected)


def test_a_constant_error_does_not_flicker():
    assert metrics.flicker([2 * TRUTH_M] * 5, [TRUTH_M] * 5) == 0


def test_flicker_skips_the_pixels_without_truth_of_each_frame():
    holed_m = TRUTH_M.copy()
    holed_m[0, 0] = np.nan
    assert metrics.flicker([1.5 * TRUTH_M] * 2, [TRUTH_M, holed_m]) == pytest.approx(0)


@by_name
def test_shapes_must_agree(metric):
    with pytest.raises(ValueError, match=r'of one shape, got \(2, 2\), \(1, 2\)'):
        metric(DEPTH_M, TRUTH_M[:1])


@by_name
def test_some_truth_must_be_there(metric):
    with pytest.raises(ValueError, match='at least one pixel with finite, positive true depth'):
        metric(DEPTH_M, np.full((2, 2), np.nan))


@pytest.mark.parametrize('count', [0, 1])
def test_flicker_needs_two_frames(count):
    with pytest.raises(ValueError, match=f'expected at least two consecutive frames, got {count}'):
        metrics.flicker([DEPTH_M] * count, [TRUTH_M] * count)


def test_flicker_needs_a_truth_for_every_frame():
    with pytest.raises(ValueError, match='zip'):
        metrics.flicker([DEPTH_M] * 3, [TRUTH_M] * 2)
