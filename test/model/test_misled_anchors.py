# SPDX-License-Identifier: Apache-2.0
"""Anchors that are told or shown what is not so: the effect is bounded, and nothing jumps."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from smoothdino_model.scale.filter import filtered
from smoothdino_model.scale.floor import floor_of_tilt, floor_scale
from smoothdino_model.scale.ranges import mounted, moved, points_scale
from support.made_views import CAMERA, as_by_a_network, planes_m, pose_of

PERIOD_NS = 100_000_000
HEIGHT_M, PITCH_DEG = 1.2, 20.0
PATIENCE = 30  # frames, 3 s


def anywhere(points):
    return np.ones(points.shape[:2], bool)


def ahead(points):
    return points[..., 0] > 2.0


UP = (0.0, 0.0, 1.0)
FLOOR, WALL = (UP, 0.0, anywhere), ((1.0, 0.0, 0.0), 4.0, anywhere)
RISE = math.tan(math.radians(6.0))
RAMP = ((-RISE, 0.0, 1.0), -2.0 * RISE, ahead)
TABLE = (UP, 0.75, anywhere)
POSE = pose_of(HEIGHT_M, PITCH_DEG, 0)
OPEN_M = planes_m([FLOOR, WALL], POSE)


def by_floor(height_m=HEIGHT_M, pitch_deg=PITCH_DEG):
    return partial(floor_scale, camera=CAMERA, floor=floor_of_tilt(height_m, pitch_deg))


def by_scan(turned_deg=0.0, ranges=1.0):
    """A scan of the wall by a lidar at the camera's height, level, but for what it is told."""
    angles = np.radians(np.arange(-30.0, 30.0, 0.5))
    points_m = np.stack((4.0 + 0 * angles, 4.0 * np.tan(angles), 0 * angles), axis=-1) * ranges
    camera_from_scan = mounted(0, 0, 0, 0, -PITCH_DEG, turned_deg)
    return partial(points_scale, camera=CAMERA, points_m=moved(points_m, camera_from_scan))


def given(anchor, depth_m, *, frames, state=None):
    """Logarithms of the scales of noisy frames, what was measured last, and the state."""
    rng = np.random.default_rng(5)
    scales = []
    for _ in range(frames):
        measured = anchor(as_by_a_network(depth_m, rng))
        stamp_ns = (state.stamp_ns if state else 0) + PERIOD_NS
        state = filtered(state, [measured], stamp_ns=stamp_ns, least=0.25, most=4.0)
        scales.append(state.log_given)
    return scales, measured, state


# What it is, the anchor, what the network sees, and how far the scale may go: of a lie for good,
# and within the time that it has to last to be believed.
MISLED = {
    'a height off by two': (by_floor(2 * HEIGHT_M), OPEN_M, 0.8, 0.8),
    'a pitch off by two degrees': (by_floor(pitch_deg=PITCH_DEG + 2), OPEN_M, 0.25, 0.25),
    'a ramp': (by_floor(), planes_m([FLOOR, RAMP], POSE), 0.3, 0.3),
    'a table that fills the picture': (by_floor(), planes_m([TABLE], POSE), 1.1, 0.02),
    'a wall alone': (by_floor(), planes_m([((1.0, 0.0, 0.0), 0.6, anywhere)], POSE), 0.02, 0.02),
    'no depth': (by_floor(), np.full_like(OPEN_M, np.nan), 0.0, 0.0),
    'a scan of another frame': (by_scan(turned_deg=35), OPEN_M, 0.5, 0.5),
    'a scan without returns': (by_scan(ranges=np.nan), OPEN_M, 0.0, 0.0),
    'a scan of zeros': (by_scan(ranges=0.0), OPEN_M, 0.0, 0.0),
}


@pytest.mark.parametrize('what', MISLED)
def test_what_misleads_has_a_bounded_effect_and_nothing_jumps(what):
    anchor, depth_m, most, most_at_once = MISLED[what]
    told_right = by_scan() if 'scan' in what else by_floor()
    before, measured, state = given(told_right, OPEN_M, frames=20)
    assert not measured.why_none
    assert np.abs(before).max() < 0.05
    after, measured, _ = given(anchor, depth_m, frames=2 * PATIENCE, state=state)
    steps = [later - one for one, later in pairwise(before[-1:] + after)]
    assert np.abs(steps).max() <= math.log(1.1) + 1e-9
    assert np.abs(after).max() <= most + 0.05
    assert np.abs(after[: PATIENCE - 2]).max() <= most_at_once + 0.05
    if most == 0:
        assert measured.why_none
