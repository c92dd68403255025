# SPDX-License-Identifier: Apache-2.0
"""The figures of depth, by hand."""

import math

import cv2
import numpy as np
import pytest
import torch

from smoothdino_model import metrics
from smoothdino_model.room.sample_room import SampleRoom

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


@pytest.mark.parametrize('seed', [0, 1])
def test_what_torchmetrics_has_too_agrees(seed):
    torchmetrics = pytest.importorskip('torchmetrics')
    rng = np.random.default_rng(seed)
    truth_m, depth_m = rng.uniform(0.5, 9, (2, 3, 20, 30))
    both = torch.from_numpy(depth_m), torch.from_numpy(truth_m)
    squared = torchmetrics.functional.mean_squared_error(*both).item()
    relative = torchmetrics.functional.mean_absolute_percentage_error(*both).item()
    assert metrics.mse(depth_m, truth_m) == pytest.approx(squared, rel=1e-9)
    assert metrics.abs_rel(depth_m, truth_m) == pytest.approx(relative, rel=1e-9)


def moved(*, forward_m: float = 0.0, turned: float = 0.0) -> np.ndarray:
    """current_from_previous of a camera that went forward and turned about its y axis."""
    motion = np.eye(4)
    motion[0, 0] = motion[2, 2] = math.cos(turned)
    motion[0, 2], motion[2, 0] = -math.sin(turned), math.sin(turned)
    motion[2, 3] = -forward_m
    return motion


def tae(previous_m, current_m, motion) -> float:
    return metrics.temporal_alignment_error(
        previous_m, current_m, current_from_previous=motion, focal_px=50.0
    )


def test_alignment_error_of_a_wall_by_hand():
    """Ahead lies a wall at 4 m, then at 3 m; one tenth too far it is at 4.4 m, then at 3.3 m."""
    wall_m = np.ones((30, 40))
    assert tae(4 * wall_m, 3 * wall_m, moved(forward_m=1)) == pytest.approx(0, abs=1e-12)
    # Of 4.4 m there should be 3.4 left, of 3.3 m there should have been 4.3.
    expected = (0.1 / 3.3 + 0.1 / 4.4) / 2
    assert tae(4.4 * wall_m, 3.3 * wall_m, moved(forward_m=1)) == pytest.approx(expected)
    # Without motion a jump of the scale by a tenth is what remains.
    expected = (0.4 / 4.4 + 0.4 / 4.0) / 2
    assert tae(4.0 * wall_m, 4.4 * wall_m, np.eye(4)) == pytest.approx(expected)


def test_alignment_error_needs_the_right_pose_and_minds_what_is_hidden():
    room = SampleRoom(1_000_003, height=120, width=160, focal_px=130.0)
    before, now = room.frame(30), room.frame(39)
    motion = np.linalg.solve(now.world_from_camera, before.world_from_camera)

    def error(depth_m, motion):
        return metrics.temporal_alignment_error(
            before.depth_m, depth_m, current_from_previous=motion, focal_px=130.0
        )

    assert error(now.depth_m, motion) < 0.01
    assert error(now.depth_m, np.eye(4)) > 0.1
    assert error(1.1 * now.depth_m, motion) == pytest.approx(0.095, abs=0.01)
    holed_m = now.depth_m.copy()
    holed_m[:60] = np.nan
    assert error(holed_m, motion) < 0.01


def test_alignment_error_of_two_views_with_nothing_in_common():
    wall_m = np.ones((30, 40))
    assert math.isnan(tae(wall_m, wall_m, moved(turned=math.pi)))


def test_alignment_error_refuses_maps_of_two_shapes():
    with pytest.raises(ValueError, match='two depth maps of one shape'):
        tae(np.ones((3, 4)), np.ones((4, 3)), np.eye(4))


def textured(height: int = 120, width: int = 160) -> np.ndarray:
    noise = np.random.default_rng(5).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def test_the_flow_finds_where_each_pixel_was():
    """Two views of a picture, the second 6 px further right in it and 4 px higher."""
    picture = textured()
    was_at = metrics.optical_flow(picture[10:100, 10:130], picture[6:96, 16:136])
    y, x = np.mgrid[:90, :120]
    found = np.isfinite(was_at).all(axis=-1)
    assert found[10:-10, 10:-10].mean() > 0.95
    np.testing.assert_allclose(was_at[found][:, 0] - x[found], 6, atol=0.6)
    np.testing.assert_allclose(was_at[found][:, 1] - y[found], -4, atol=0.6)
    assert not found[:, -4:].any()  # these columns were not in view before
    assert not found[:2].any()


def test_depth_that_moves_with_the_picture_is_consistent():
    picture = textured()
    depth_m = 1 + picture[..., 0] / 60
    was_at = metrics.optical_flow(picture[10:100, 10:130], picture[6:96, 16:136])
    previous_m, current_m = depth_m[10:100, 10:130], depth_m[6:96, 16:136]
    floor = metrics.flow_consistency(previous_m, current_m, was_at)
    assert floor < 0.01
    assert metrics.flow_consistency(previous_m, 1.2 * current_m, was_at) == pytest.approx(
        math.log(1.2), abs=floor
    )
    assert metrics.flow_consistency(previous_m, previous_m, was_at) > 5 * floor
    holed_m = np.where(current_m > 3, np.nan, current_m)
    assert metrics.flow_consistency(previous_m, holed_m, was_at) < 0.01
    assert math.isnan(metrics.flow_consistency(previous_m, np.nan * current_m, was_at))


def step_m(at: int) -> np.ndarray:
    """A wall 1 m away left of a column, 2 m from it on."""
    depth_m = np.ones((20, 30))
    depth_m[:, at:] = 2.0
    return depth_m


@pytest.mark.parametrize(('off', 'expected'), [(0, 1.0), (1, 1.0), (2, 0.0)])
def test_an_edge_counts_within_a_pixel(off, expected):
    assert metrics.edge_f1(step_m(15 + off), step_m(15)) == pytest.approx(expected)


def test_edges_know_no_scale_and_blur_has_none():
    truth_m = step_m(15)
    assert metrics.edge_f1(3 * truth_m, truth_m) == pytest.approx(1)
    ramp_m = np.broadcast_to(np.linspace(1, 2, 30), truth_m.shape)
    assert metrics.edge_f1(ramp_m, truth_m) < 0.5
    assert math.isnan(metrics.edge_f1(truth_m, np.ones_like(truth_m)))


def test_edges_that_are_not_there_count_against():
    depth_m = step_m(15)
    depth_m[:, 25:] = 4.0
    precision, recall = 0.5, 1.0
    expected = 2 * precision * recall / (precision + recall)
    assert metrics.edge_f1(depth_m, step_m(15)) == pytest.approx(expected)


def test_no_edge_is_where_the_truth_is_unknown():
    truth_m = step_m(15)
    truth_m[:, 14:16] = np.nan
    truth_m[5, 3] = 4.0
    assert metrics.edge_f1(truth_m, truth_m) == pytest.approx(1)
    assert metrics.edge_f1(step_m(15), truth_m) == 0
