# SPDX-License-Identifier: Apache-2.0
"""The scale over time: what is clear is followed, what is not is left, and nothing jumps."""

import math
from itertools import pairwise

import numpy as np
import pytest

from smoothdino_model.scale.filter import filtered
from smoothdino_model.scale.measurement import Measurement

PERIOD_NS = 33_333_333


def given(measurements, *, least=0.25, most=4.0) -> list[float]:
    """The logarithm of the scale after each frame's measurements."""
    state, scales = None, []
    for i, ones in enumerate(measurements):
        found = ones if isinstance(ones, list) else [ones]
        state = filtered(state, found, stamp_ns=i * PERIOD_NS, least=least, most=most)
        scales.append(state.log_given)
    return scales


def says(log_scale: float, spread: float = 0.08, doubt: float = math.inf) -> Measurement:
    return Measurement(log_scale, spread, 100, 3000, doubt=doubt)


NONE = Measurement(why_none='no floor')


@pytest.mark.parametrize('log_scale', [-0.8, -0.3, 0.3, 0.8])
def test_a_clear_scale_is_taken_at_the_first_frame(log_scale):
    (first,) = given([says(log_scale)])
    assert first == pytest.approx(log_scale, abs=0.06)


def test_a_network_that_is_right_is_left_alone():
    rng = np.random.default_rng(0)
    for bias in (-0.06, 0.0, 0.06):  # within what the anchor is unsure of
        scales = given([says(bias + rng.normal(0, 0.005)) for _ in range(90)])
        assert np.abs(scales).max() < 0.02
        assert abs(np.mean(scales)) < 0.005


def test_a_measurement_that_jitters_does_not_make_depth_jitter():
    jitter = np.random.default_rng(1).normal(0, 0.05, 200)
    scales = np.array(given([says(-0.5 + error) for error in jitter]))[20:]
    assert np.abs(np.diff(scales)).mean() < 0.5 * np.abs(np.diff(jitter)).mean()


@pytest.mark.parametrize('wrong', [-1.2, 1.2])
def test_nothing_changes_by_more_than_a_tenth_between_frames(wrong):
    rng = np.random.default_rng(2)
    measurements = [
        says(wrong if 30 <= i < 230 else rng.normal(0, 0.5), spread=rng.uniform(0.03, 0.5))
        for i in range(300)
    ]
    for before, after in pairwise(given(measurements)):
        assert abs(after - before) <= math.log(1.1) + 1e-9


def test_the_scale_stays_within_its_range():
    assert min(given([says(-3.0)] * 200, least=0.5, most=2.0)) == pytest.approx(math.log(0.5))
    assert max(given([says(3.0)] * 200, least=0.5, most=2.0)) == pytest.approx(math.log(2.0))


def test_a_short_surprise_is_not_believed_and_a_lasting_one_is():
    steady = [says(-0.5)] * 60
    short = given(steady + [says(0.6)] * 30 + steady)
    assert max(abs(one + 0.5) for one in short[5:]) < 0.05
    lasting = given(steady + [says(0.6)] * 150)
    assert lasting[-1] == pytest.approx(0.6, abs=0.05)


def test_a_table_that_seems_a_near_floor_is_doubted():
    table = [says(0.6, doubt=0.29)] * 60
    floor = [says(0.02, doubt=0.29)] * 60
    assert np.abs(given(table)).max() == 0
    assert np.abs(given(floor + table)).max() < 0.01


def test_where_nothing_is_measured_the_scale_stays():
    scales = given([says(-0.5)] * 30 + [NONE] * 900 + [[]] * 10)
    assert scales[-1] == pytest.approx(scales[29], abs=0.01)
    assert given([NONE, NONE]) == [0.0, 0.0]


def test_what_may_be_a_table_is_followed_more_slowly_up_than_down():
    floor = [says(0.0, doubt=0.3)] * 30
    up, down = (given(floor + [says(sign * 0.25, doubt=0.3)] * 3)[-1] for sign in (1, -1))
    assert down < -0.1
    assert 0 <= up < -0.7 * down


def test_anchors_are_weighed_by_their_spread():
    sure, unsure = says(-0.5, spread=0.03), says(-0.3, spread=0.3)
    (both,) = given([[sure, unsure]])
    assert both == pytest.approx(-0.5, abs=0.03)
    scan_and_table = given([[says(0.02), says(0.7, doubt=0.11)]] * 200)
    assert np.abs(scan_and_table).max() < 0.01
    (alike,) = given([[says(-0.6, spread=0.1), says(-0.4, spread=0.1)]])
    assert -0.6 < alike < -0.4


def test_a_stream_in_two_parts_equals_the_whole():
    rng = np.random.default_rng(3)
    measurements = [says(rng.normal(-0.4, 0.1)) for _ in range(40)]
    state = None
    for i, one in enumerate(measurements):
        before = state
        state = filtered(before, [one], stamp_ns=i * PERIOD_NS, least=0.25, most=4)
        again = filtered(before, [one], stamp_ns=i * PERIOD_NS, least=0.25, most=4)
        assert again == state


def test_what_may_be_a_table_does_not_creep_up():
    rising = [says(0.05 + 0.004 * i, doubt=0.1) for i in range(180)]  # six seconds
    assert max(given(rising)) < 0.1


def test_what_is_beyond_doubt_is_what_doubt_is_measured_from():
    sure, like_it = [says(0.5)] * 10, [says(0.55, doubt=0.1)] * 60
    scales = given(sure + like_it)
    assert scales[-1] == pytest.approx(0.5, abs=0.05)
    assert given(like_it)[-1] == 0  # alone it would have to last
