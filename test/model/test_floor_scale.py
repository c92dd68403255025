# SPDX-License-Identifier: Apache-2.0
"""The scale of depth by the floor: found where there is floor, left alone where there is none."""

import math

import numpy as np
import pytest

from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.floor import Floor, floor_of_pose, floor_of_tilt, floor_scale
from support.made_views import (
    CAMERA,
    as_by_a_network,
    heights_m,
    planes_m,
    pose_of,
    rays,
    room_views,
)

UP = (0.0, 0.0, 1.0)


def anywhere(points):
    return np.ones(points.shape[:2], bool)


def within(**limits):
    """There where x ahead, y left and z up lie within limits, in metres."""

    def there(points):
        inside = anywhere(points)
        for axis, (least, most) in limits.items():
            value = points[..., 'xyz'.index(axis)]
            inside &= (value >= least) & (value <= most)
        return inside

    return there


FLOOR = (UP, 0.0, anywhere)
WALL = ((1.0, 0.0, 0.0), 5.0, anywhere)


@pytest.fixture(scope='module')
def views():
    return room_views(8, 10)


@pytest.mark.slow
def test_a_known_scale_of_a_bent_noisy_prediction_is_recovered(views):
    rng = np.random.default_rng(0)
    errors = []
    measured = 0
    shown = [view for view in views if view.is_floor.mean() >= 0.1]
    assert len(shown) >= 25
    for view in shown:
        log_scale = rng.uniform(-0.7, 0.7)
        depth_m = as_by_a_network(view.depth_m, rng, scale=math.exp(-log_scale))
        floor = floor_of_tilt(view.height_m, view.pitch_deg, view.roll_deg)
        found = floor_scale(depth_m, view.camera, floor)
        if not found.why_none:
            measured += 1
            errors.append(abs(found.log_scale - log_scale))
    assert measured >= 0.95 * len(shown)
    assert np.median(errors) < 0.05
    assert np.percentile(errors, 95) < 0.15


@pytest.mark.slow
def test_where_there_is_no_floor_it_says_so_or_doubts(views):
    rng = np.random.default_rng(1)
    shown = [view for view in views if view.is_floor.mean() < 0.01]
    assert len(shown) >= 20
    doubted = 0
    for view in shown:
        depth_m = as_by_a_network(view.depth_m, rng)
        floor = floor_of_tilt(view.height_m, view.pitch_deg, view.roll_deg)
        found = floor_scale(depth_m, view.camera, floor)
        doubted += not found.why_none
        assert found.why_none or found.log_scale > found.doubt
    assert doubted < 0.25 * len(shown)


@pytest.mark.parametrize('height_m', [0.2, 0.6, 1.8])
@pytest.mark.parametrize(('pitch_deg', 'roll_deg'), [(-10, 0), (0, 3), (30, -10), (85, 0)])
def test_the_floor_of_angles_is_that_of_a_pose_and_of_the_depth(height_m, pitch_deg, roll_deg):
    pose = pose_of(height_m, pitch_deg, roll_deg, yaw=1.0, x=3.0)
    by_angles, by_pose = floor_of_tilt(height_m, pitch_deg, roll_deg), floor_of_pose(pose)
    assert by_angles.down == pytest.approx(by_pose.down)
    assert by_angles.height_m == pytest.approx(by_pose.height_m)
    depth_m = planes_m([FLOOR], pose)
    found = floor_scale(depth_m, CAMERA, by_angles)
    assert found.log_scale == pytest.approx(0, abs=1e-3)
    assert found.spread < 0.1


def test_a_camera_that_leans_to_its_right_sees_the_floor_nearer_on_its_right():
    down_right = floor_of_tilt(1.0, 30.0, 10.0).down
    assert down_right[0] > 0
    assert down_right[2] > 0  # and one that looks down sees it ahead


def test_of_a_table_and_a_floor_the_floor_counts_and_a_table_alone_is_doubted():
    pose = pose_of(1.4, 25, 0)
    table = (UP, 0.75, within(x=(0.5, 1.6), y=(-0.6, 0.6)))
    depth_m = planes_m([FLOOR, WALL, table], pose)
    on_table = np.abs(heights_m(depth_m, CAMERA, pose) - 0.75) < 0.01
    assert on_table.mean() > 0.2
    both = floor_scale(depth_m, CAMERA, floor_of_tilt(1.4, 25))
    assert both.log_scale == pytest.approx(0, abs=0.01)
    filled = planes_m([(UP, 0.75, anywhere)], pose)
    table_alone = floor_scale(filled, CAMERA, floor_of_tilt(1.4, 25))
    assert table_alone.log_scale == pytest.approx(math.log(1.4 / 0.65), abs=0.01)
    assert table_alone.log_scale > table_alone.doubt


def test_a_wall_alone_is_no_floor():
    wall = ((1.0, 0.0, 0.0), 0.8, anywhere)
    found = floor_scale(planes_m([FLOOR, wall], pose_of(1.4, 0, 0)), CAMERA, floor_of_tilt(1.4, 0))
    assert 'level' in found.why_none
    assert math.isnan(found.log_scale)


def test_above_the_horizon_there_is_no_floor():
    found = floor_scale(np.ones((240, 320), np.float32), CAMERA, floor_of_tilt(1.4, -60))
    assert 'horizon' in found.why_none


@pytest.mark.parametrize('rise_deg', [-5, 5])
def test_a_ramp_has_a_bounded_effect(rise_deg):
    steep = math.tan(math.radians(rise_deg))
    ramp = ((-steep, 0.0, 1.0), -1.2 * steep, within(x=(1.2, 9.0)))  # from 1.2 m ahead
    floor = (UP, 0.0, within(x=(-1.0, 1.2)))
    depth_m = planes_m([floor, ramp], pose_of(0.6, 20, 0))
    found = floor_scale(depth_m, CAMERA, floor_of_tilt(0.6, 20))
    assert found.why_none or abs(found.log_scale) < max(0.2, 2 * found.spread)


def test_unknown_depth_does_not_count():
    depth_m = planes_m([FLOOR, WALL], pose_of(0.6, 15, 0))
    rng = np.random.default_rng(2)
    for unknown in (np.nan, np.inf, -np.inf, 0.0, -1.0):
        holed = np.where(rng.random(depth_m.shape) < 0.3, unknown, depth_m).astype(np.float32)
        found = floor_scale(holed, CAMERA, floor_of_tilt(0.6, 15))
        assert found.log_scale == pytest.approx(0, abs=0.01)
    for nothing in (np.nan, 0.0, np.inf):
        nowhere = np.full((240, 320), nothing, np.float32)
        assert floor_scale(nowhere, CAMERA, floor_of_tilt(0.6, 15)).why_none


def test_a_height_off_by_two_is_a_scale_off_by_two():
    depth_m = planes_m([FLOOR, WALL], pose_of(0.6, 15, 0))
    found = floor_scale(depth_m, CAMERA, floor_of_tilt(1.2, 15))
    assert found.scale == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize('size', [(1, 1), (5, 7), (28, 42), (7, 4000)])
def test_a_picture_of_any_size_is_answered(size):
    height, width = size
    camera = Intrinsics(width * 0.8, width * 0.8, width / 2, height / 2, width, height)
    depth_m = 1 / np.maximum(rays(camera)[..., 1] + 0.3, 0.02)
    floor_scale(depth_m.astype(np.float32), camera, floor_of_tilt(1.0, 17))


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(ValueError, match='to the middle of the lens, in metres'):
        floor_of_tilt(0.0, 10)
    with pytest.raises(ValueError, match='over the floor, got nan'):
        floor_of_tilt(math.nan, 10)
    with pytest.raises(ValueError, match='pitch of the camera of -90 to 90 degrees, got 100'):
        floor_of_tilt(1.0, 100)
    with pytest.raises(ValueError, match='length 1'):
        Floor(1.0, (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match='the size of its camera'):
        floor_scale(np.ones((10, 10), np.float32), CAMERA, floor_of_tilt(1.0, 10))
