# SPDX-License-Identifier: Apache-2.0
"""Clouds, colours and the pinhole behind them: each is taken back to what it was made of."""

import dataclasses

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (sensor_msgs)')

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, PointCloud2, RegionOfInterest
from std_msgs.msg import Header

from smoothdino_model.recordings.calibration import depth_camera_info, intrinsics_of, is_distorted
from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_ros import depth_colors as colors
from smoothdino_ros.point_cloud import point_cloud_message
from support.point_clouds import points_of

RNG = np.random.default_rng(3)
PINHOLE = Intrinsics(40.0, 42.0, 23.5, 17.0, 48, 36)
DEPTH_M = RNG.uniform(0.5, 9.5, (36, 48)).astype(np.float32)
RGB = RNG.integers(0, 256, (36, 48, 3), dtype=np.uint8)
RANGE_M = {'min_depth_m': 0.1, 'max_depth_m': 10.0}


def cloud(depth_m=DEPTH_M, **options) -> PointCloud2:
    message = point_cloud_message(depth_m, RGB, PINHOLE, Header(), **RANGE_M, **options)
    return deserialize_message(serialize_message(message), PointCloud2)


@pytest.mark.parametrize('stride', [1, 2, 5, 64])
def test_points_project_back_to_their_pixels(stride):
    message = cloud(stride=stride)
    xyz, rgb = points_of(message)
    np.testing.assert_array_equal(rgb, RGB[::stride, ::stride])
    np.testing.assert_array_equal(xyz[..., 2], DEPTH_M[::stride, ::stride])
    u = xyz[..., 0] / xyz[..., 2] * PINHOLE.fx_px + PINHOLE.cx_px
    v = xyz[..., 1] / xyz[..., 2] * PINHOLE.fy_px + PINHOLE.cy_px
    rows, columns = np.mgrid[0:36:stride, 0:48:stride]
    np.testing.assert_allclose(u, columns, atol=1e-4)
    np.testing.assert_allclose(v, rows, atol=1e-4)


def test_what_is_no_depth_is_no_point():
    depth_m = DEPTH_M.copy()
    nothing = [np.nan, np.inf, -np.inf, 0.0, -1.0, 0.05, 10.5]
    depth_m[0, : len(nothing)] = nothing
    before = depth_m.copy()
    message = cloud(depth_m)
    xyz, rgb = points_of(message)
    assert np.isnan(xyz[0, : len(nothing)]).all()
    assert np.isfinite(xyz[0, len(nothing) :]).all()
    assert np.isfinite(xyz[1:]).all()
    np.testing.assert_array_equal(rgb, RGB)
    assert not message.is_dense
    np.testing.assert_array_equal(depth_m, before)


def thinned(depth_m=DEPTH_M, **options) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) metres and colours of a cloud that is a list of points, every one of them known."""
    message = cloud(depth_m, **options)
    assert message.height == 1
    assert message.is_dense
    xyz, rgb = points_of(message)
    assert np.isfinite(xyz).all()
    return xyz[0], rgb[0]


def rows(xyz: np.ndarray, rgb: np.ndarray) -> list[tuple]:
    """Points and their colours, without those that are unknown."""
    both = np.concatenate((xyz, rgb), axis=-1).reshape(-1, 6)
    return [tuple(row) for row in both[np.isfinite(both[:, 2])].tolist()]


@pytest.mark.parametrize('stride', [1, 3])
def test_points_end_at_a_distance_from_the_camera(stride):
    depth_m = DEPTH_M.copy()
    depth_m[3, :4] = [np.nan, np.inf, 0.0, 99.0]
    whole = points_of(cloud(depth_m, stride=stride))
    xyz, _ = near = thinned(depth_m, stride=stride, max_range_m=5.0)
    wanted = [row for row in rows(*whole) if np.linalg.norm(row[:3]) <= 5.0]
    assert 0 < len(wanted) < len(rows(*whole))
    assert rows(*near) == wanted
    assert xyz[:, 2].max() < 5.0 < np.nanmax(whole[0][..., 2])


@pytest.mark.parametrize(('edge_m', 'range_m'), [(0.05, 0.0), (0.3, 0.0), (0.3, 4.0), (10.0, 0.0)])
def test_in_each_cube_one_point_is_left_with_its_own_colour(edge_m, range_m):
    def cube(row):
        return tuple(np.floor(np.float32(row[:3]) / edge_m).astype(int).tolist())

    whole = [
        row
        for row in rows(*points_of(cloud()))
        if not range_m or np.linalg.norm(row[:3]) <= range_m
    ]
    kept = rows(*thinned(voxel_m=edge_m, max_range_m=range_m))
    assert set(kept) <= set(whole)
    assert {cube(row) for row in kept} == {cube(row) for row in whole}
    assert len(kept) == len({cube(row) for row in kept})
    assert thinned(voxel_m=edge_m, max_range_m=range_m)[0].tolist() == [list(r[:3]) for r in kept]


def test_a_wall_is_thinned_to_the_middle_of_each_of_its_tiles():
    edge_m = 0.4  # eight pixels
    xyz, _ = thinned(np.full((36, 48), 2.05, np.float32), voxel_m=edge_m)
    columns, rows_ = (len(np.unique(np.floor(xyz[:, axis] / edge_m))) for axis in (0, 1))
    assert len(xyz) == columns * rows_ > 20
    inner = (xyz[:, :2] / edge_m) % 1
    assert np.median(np.abs(inner - 0.5)) < 0.07
    assert np.abs(np.median(inner, axis=0) - 0.5).max() < 0.05


@pytest.mark.parametrize('options', [{'max_range_m': 0.2}, {'voxel_m': 0.1}])
def test_where_nothing_is_near_the_cloud_is_empty_and_still_one(options):
    xyz, rgb = thinned(np.full((36, 48), 50.0, np.float32), **options)
    assert xyz.shape == rgb.shape == (0, 3)


def camera_info(**fields) -> CameraInfo:
    info = CameraInfo(height=480, width=640, distortion_model='plumb_bob', d=[0.0] * 5)
    info.k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    info.p = [450.0, 0.0, 310.0, -50.0, 0.0, 450.0, 235.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def pinhole(info: CameraInfo, height: int, width: int, *, rectified: bool = False):
    own = depth_camera_info(info, Header(), height=height, width=width)
    return intrinsics_of(own, height=height, width=width, rectified=rectified)


def test_k_is_of_the_picture_and_p_of_a_rectified_one():
    assert pinhole(camera_info(), 480, 640) == Intrinsics(500, 510, 320, 240, 640, 480)
    assert pinhole(camera_info(), 480, 640, rectified=True) == (
        Intrinsics(450, 450, 310, 235, 640, 480)
    )
    without_p = camera_info(p=[0.0] * 12)
    assert pinhole(without_p, 480, 640, rectified=True).fx_px == 500


def test_a_resized_a_binned_and_a_cut_out_picture_see_with_the_same_lens():
    whole, small = pinhole(camera_info(), 480, 640), pinhole(camera_info(), 120, 160)
    assert dataclasses.astuple(small)[:4] == tuple(v / 4 for v in dataclasses.astuple(whole)[:4])
    binned = pinhole(camera_info(binning_x=2, binning_y=2), 240, 320)
    assert dataclasses.astuple(binned)[:4] == (250, 255, 160, 120)
    part = RegionOfInterest(x_offset=100, y_offset=40, width=320, height=240)
    cut = pinhole(camera_info(roi=part), 240, 320)
    assert dataclasses.astuple(cut)[:4] == (500, 510, 220, 200)
    sizeless = pinhole(camera_info(width=0, height=0), 480, 640)
    assert sizeless == whole


@pytest.mark.parametrize(
    ('k', 'reason'),
    [
        ([0.0] * 9, 'not calibrated'),
        ([float('nan')] * 9, 'expected a focal length'),
        ([float('inf'), 0, 320, 0, 500, 240, 0, 0, 1], 'expected a focal length'),
        ([-500.0, 0, 320, 0, 500, 240, 0, 0, 1], 'expected a focal length'),
        (
            [1.0, 0, 0.5, 0, 1.0, 0.5, 0, 0, 1],
            'expected a focal length',
        ),  # in units of the picture
        ([1e308, 0, 320, 0, 1e308, 240, 0, 0, 1], 'expected a focal length'),
        ([500.0, 0, 1e9, 0, 500, 240, 0, 0, 1], 'expected a principal point'),
        ([500.0, 0, float('nan'), 0, 500, 240, 0, 0, 1], 'expected a principal point'),
    ],
)
def test_numbers_of_no_camera_are_refused_in_words(k, reason):
    with pytest.raises(ValueError, match=reason):
        pinhole(camera_info(k=[float(v) for v in k]), 480, 640)


def test_distortion_is_any_number_but_zero():
    assert not is_distorted(camera_info())
    assert not is_distorted(camera_info(d=[]))
    assert not is_distorted(camera_info(d=[float('nan')] * 5))
    assert is_distorted(camera_info(d=[0.0, 0.0, 1e-3, 0.0, 0.0]))


def test_a_depth_has_one_colour_whatever_is_beside_it():
    alone = colors.depth_colors(np.full((1, 1), 3.0, np.float32), **RANGE_M)
    beside = colors.depth_colors(np.array([[3.0, 0.2, 9.9]], np.float32), **RANGE_M)
    np.testing.assert_array_equal(alone[0, 0], beside[0, 0])


def test_no_depth_is_black_and_nothing_else_is():
    nothing = [np.nan, np.inf, -np.inf, 0.0, -1.0, 0.05, 10.5]
    assert not colors.depth_colors(np.array([nothing], np.float32), **RANGE_M).any()
    some = np.linspace(0.1, 10, 1000, dtype=np.float32)[None]
    assert colors.depth_colors(some, **RANGE_M).any(axis=-1).all()


def test_nearer_is_brighter_in_even_steps():
    some = np.linspace(0.1, 10, 33, dtype=np.float32)[None]
    lab = cv2.cvtColor(colors.depth_colors(some, **RANGE_M), cv2.COLOR_RGB2LAB)
    lightness = lab[0, :, 0].astype(float)
    steps = -np.diff(lightness)
    assert steps.min() > 0
    assert steps.max() < 2.5 * steps.mean()


def test_the_legend_is_made_of_the_same_colours(tmp_path):
    assert colors.main([str(tmp_path / 'legend.png'), '--min', '1', '--max', '5']) == 0
    picture = cv2.imread(str(tmp_path / 'legend.png'))[..., ::-1]
    near, far = colors.depth_colors(
        np.array([[1.0, 5.0]], np.float32), min_depth_m=1.0, max_depth_m=5.0
    )[0]
    row = picture[40]
    places = [np.flatnonzero((row == color).all(axis=1)).tolist() for color in (near, far)]
    assert places[0][0] < places[1][-1]
    with pytest.raises(SystemExit):
        colors.main([str(tmp_path / 'legend.png'), '--min', '5', '--max', '1'])
