# SPDX-License-Identifier: Apache-2.0
"""The scale of depth by a scan, a sonar or a sparse cloud, and their messages made into points."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from smoothdino_model.scale.ranges import (
    cloud_points,
    cone_scale,
    mounted,
    moved,
    points_scale,
    range_points,
    scan_points,
)
from support.made_views import CAMERA, as_by_a_network, planes_m, pose_of, rays


def anywhere(points):
    return np.ones(points.shape[:2], bool)


POSE = pose_of(0.6, 5, 0)
# A room about the camera, whose walls are 4 m ahead and 2 m to each side, and its floor.
ROOM = [
    ((0.0, 0.0, 1.0), 0.0, anywhere),
    ((1.0, 0.0, 0.0), 4.0, anywhere),
    ((0.0, 1.0, 0.0), 2.0, anywhere),
    ((0.0, 1.0, 0.0), -2.0, anywhere),
]
TRUTH_M = planes_m(ROOM, POSE)


def scan_of(rng, *, height_m: float = 0.4, beams: int = 180) -> SimpleNamespace:
    """A scan of the room, level, right over the camera's foot, 2 cm of noise, x ahead."""
    angles = np.linspace(-math.pi / 2, math.pi / 2, beams)
    with np.errstate(divide='ignore'):
        ranges = np.minimum(4 / np.cos(angles), 2 / np.abs(np.sin(angles)))
    return SimpleNamespace(
        angle_min=float(angles[0]),
        angle_increment=float(angles[1] - angles[0]),
        range_min=0.1,
        range_max=12.0,
        ranges=ranges + rng.normal(0, 0.02, beams),
    )


def camera_from_scan(height_m: float = 0.4) -> np.ndarray:
    floor_from_scan = np.eye(4)
    floor_from_scan[2, 3] = height_m
    return np.linalg.solve(POSE, floor_from_scan)


@pytest.mark.parametrize('log_scale', [-0.7, -0.2, 0.0, 0.5])
def test_a_scan_recovers_a_known_scale(log_scale):
    rng = np.random.default_rng(0)
    depth_m = as_by_a_network(TRUTH_M, rng, scale=math.exp(-log_scale))
    points_m = moved(scan_points(scan_of(rng)), camera_from_scan())
    found = points_scale(depth_m, CAMERA, points_m)
    assert found.log_scale == pytest.approx(log_scale, abs=0.1)
    assert abs(found.log_scale - log_scale) < 3 * found.spread
    assert found.inliers > 20


def test_glass_and_what_hides_are_outliers():
    rng = np.random.default_rng(1)
    scan = scan_of(rng)
    scan.ranges[60:75] *= 2.0  # through a pane
    scan.ranges[90:100] = 0.4  # something that is over the picture
    found = points_scale(TRUTH_M, CAMERA, moved(scan_points(scan), camera_from_scan()))
    assert found.log_scale == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize('share', [0.1, 0.3, 0.5])
def test_outliers_pull_little_however_far_off_and_make_the_spread_larger(share):
    points_m = rays(CAMERA)[::8, ::8].reshape(-1, 3) * 2.0
    depth_m = np.full((CAMERA.height, CAMERA.width), 2.0, np.float32)
    alone = points_scale(depth_m, CAMERA, points_m)
    assert alone.log_scale == pytest.approx(0, abs=1e-6)
    outliers = np.random.default_rng(0).random(len(points_m)) < share
    pulled = []
    for factor in (2.0, 5.0):
        far_m = np.where(outliers[:, None], factor, 1.0) * points_m
        found = points_scale(depth_m, CAMERA, far_m)
        assert 0 < found.log_scale < 1.1 * share / (1 - share) * 0.25
        assert found.log_scale < 1.5 * found.spread
        assert found.spread > alone.spread
        pulled.append(found.log_scale)
    assert pulled[0] == pytest.approx(pulled[1], abs=1e-6)


def test_a_scan_of_another_place_says_nothing_or_little():
    rng = np.random.default_rng(2)
    points_m = rays(CAMERA).reshape(-1, 3)[rng.integers(0, 320 * 240, 100)]
    points_m = points_m * rng.uniform(0.3, 9.0, (100, 1))
    found = points_scale(TRUTH_M, CAMERA, points_m)
    assert 'agree with one scale' in found.why_none


def test_points_beside_and_behind_the_picture_do_not_count():
    behind = -rays(CAMERA).reshape(-1, 3)[:500] * 3
    beside = np.array([[50.0, 0.0, 1.0]] * 50)
    nothing = np.full((20, 3), np.nan)
    found = points_scale(TRUTH_M, CAMERA, np.concatenate((behind, beside, nothing)))
    assert found.why_none == '0 points fall on the picture'
    assert points_scale(TRUTH_M, CAMERA, np.empty((0, 3))).why_none


@pytest.mark.parametrize('unknown', [np.nan, np.inf, 0.0, -1.0])
def test_unknown_depth_does_not_count(unknown):
    rng = np.random.default_rng(3)
    holed = np.where(rng.random(TRUTH_M.shape) < 0.5, unknown, TRUTH_M)
    found = points_scale(holed, CAMERA, moved(scan_points(scan_of(rng)), camera_from_scan()))
    assert found.log_scale == pytest.approx(0, abs=0.05)


def test_depth_of_another_size_is_refused():
    with pytest.raises(ValueError, match='the size of its camera'):
        points_scale(np.ones((4, 4)), CAMERA, np.ones((9, 3)))


def test_a_scan_leaves_out_what_is_no_range():
    scan = SimpleNamespace(
        angle_min=0.0,
        angle_increment=math.pi / 2,
        range_min=0.1,
        range_max=10.0,
        ranges=[1.0, 2.0, 0.0, math.nan, math.inf, -math.inf, 11.0, 0.05],
    )
    np.testing.assert_allclose(scan_points(scan), [[1, 0, 0], [0, 2, 0]], atol=1e-12)


def test_the_nearest_thing_in_a_cone_gives_the_scale():
    message = SimpleNamespace(range=1.5, field_of_view=0.4, min_range=0.02, max_range=4.0)
    points_m = range_points(message)
    np.testing.assert_allclose(np.linalg.norm(points_m, axis=1), 1.5)
    assert np.degrees(np.arctan2(points_m[:, 1], points_m[:, 0])).max() == pytest.approx(
        math.degrees(0.2)
    )
    pillar = ((1.0, 0.0, 0.0), 1.5, lambda p: np.abs(p[..., 1]) < 0.2)
    seen_m = planes_m([*ROOM, pillar], pose_of(0.6, 0, 0))
    optical = np.eye(4)
    optical[:3, :3] = pose_of(1, 0, 0)[:3, :3].T
    found = cone_scale(seen_m / 1.3, CAMERA, moved(points_m, optical))
    assert found.log_scale == pytest.approx(math.log(1.3), abs=0.05)
    beside = moved(points_m, optical) + np.array([9.0, 0.0, 0.0])
    assert 'outside' in cone_scale(seen_m, CAMERA, beside).why_none


@pytest.mark.parametrize('distance', [math.inf, -math.inf, math.nan, 0.0, 0.01, 5.0])
def test_a_range_that_sees_nothing_gives_no_points(distance):
    message = SimpleNamespace(range=distance, field_of_view=0.4, min_range=0.02, max_range=4.0)
    assert range_points(message).shape == (0, 3)


def made_cloud(points, kind: str, order: str) -> SimpleNamespace:
    """Fields in an order of their own, with something before, between and after."""
    place = {'names': ['z', 'x', 'y'], 'formats': [order + kind] * 3, 'offsets': [4, 16, 28]}
    record = np.zeros(len(points), np.dtype(place | {'itemsize': 48}))
    for i, axis in enumerate('xyz'):
        record[axis] = points[:, i]
    fields = [
        SimpleNamespace(name=name, offset=offset, datatype={'f4': 7, 'f8': 8}[kind])
        for name, offset in zip(place['names'], place['offsets'], strict=True)
    ]
    return SimpleNamespace(
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=order == '>',
        point_step=48,
        row_step=48 * len(points),
        data=record.tobytes(),
    )


@pytest.mark.parametrize('kind', ['f4', 'f8'])
@pytest.mark.parametrize('order', ['<', '>'])
def test_a_cloud_gives_its_finite_points(kind, order):
    points = np.random.default_rng(4).normal(size=(50, 3)).astype(np.float32)
    points[7, 1] = np.nan
    read = cloud_points(made_cloud(points, kind, order))
    np.testing.assert_array_equal(read, np.delete(points, 7, axis=0))


def test_of_a_dense_cloud_some_points_are_enough():
    points = np.ones((200_000, 3), np.float32)
    assert 10_000 < len(cloud_points(made_cloud(points, 'f4', '<'))) <= 40_000


def test_a_cloud_that_is_short_or_none_is_refused_in_words():
    cloud = made_cloud(np.ones((9, 3)), 'f4', '<')
    cloud.data = cloud.data[:-1]
    with pytest.raises(ValueError, match='expected 432 bytes'):
        cloud_points(cloud)
    cloud = made_cloud(np.ones((9, 3)), 'f4', '<')
    cloud.fields[0].datatype = 2
    with pytest.raises(ValueError, match='x, y and z as FLOAT32'):
        cloud_points(cloud)
    cloud = made_cloud(np.ones((9, 3)), 'f4', '<')
    cloud.fields[0].offset = 46
    with pytest.raises(ValueError, match='with x, y and z in them'):
        cloud_points(cloud)
    assert cloud_points(made_cloud(np.ones((0, 3)), 'f4', '<')).shape == (0, 3)


def test_a_mounted_sensor_is_where_its_numbers_say():
    """Ahead, left and up of the camera, whose own axes are right, down and ahead."""
    ahead, left, up = np.eye(3) * 2.0
    np.testing.assert_allclose(moved(ahead[None], mounted(1, 2, 3, 0, 0, 0)), [(-2, -3, 3)])
    np.testing.assert_allclose(moved(left[None], mounted(0, 0, 0, 0, 0, 0)), [(-2, 0, 0)])
    np.testing.assert_allclose(moved(up[None], mounted(0, 0, 0, 0, 0, 0)), [(0, -2, 0)])
    looks_left = moved(ahead[None], mounted(0, 0, 0, 0, 0, 90))
    np.testing.assert_allclose(looks_left, [(-2, 0, 0)], atol=1e-12)
    looks_down = moved(ahead[None], mounted(0, 0, 0, 0, 30, 0))
    np.testing.assert_allclose(looks_down, [(0, 1, math.sqrt(3))], atol=1e-12)
    upside_down = moved(left[None], mounted(0, 0, 0, 180, 0, 0))
    np.testing.assert_allclose(upside_down, [(2, 0, 0)], atol=1e-12)


def test_both_numbers_are_told_by_a_measurement():
    points_m = rays(CAMERA)[::8, ::8].reshape(-1, 3) * 3.0
    depth_m = np.full((CAMERA.height, CAMERA.width), 2.0, np.float32)
    for compare in (points_scale, cone_scale):
        found = compare(depth_m, CAMERA, points_m)
        assert found.known_m == pytest.approx(3.0)
        assert found.known_m / found.scale == pytest.approx(2.0)
