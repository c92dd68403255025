# SPDX-License-Identifier: Apache-2.0
"""One camera_info, one image, one pinhole: the right one, or a sentence that says why none."""

import numpy as np
import pytest

from smoothdino_model.network.trained_camera import NYU
from smoothdino_model.recordings.bags import TYPES
from smoothdino_model.recordings.calibration import (
    NO_INFO,
    calibrated,
    is_distorted,
    is_rectified,
)
from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.room.sample_room import NYU_FOCAL


def info_of(width, height, fx=800.0, fy=800.0, cx=None, cy=None, **fields):
    """A camera_info as rosbags makes it; fields are those of the message or of its roi."""
    cx, cy = width / 2 if cx is None else cx, height / 2 if cy is None else cy
    types = TYPES.types
    time = types['builtin_interfaces/msg/Time'](0, 0)
    region = dict.fromkeys(('x_offset', 'y_offset', 'height', 'width'), 0) | {'do_rectify': False}
    roi = types['sensor_msgs/msg/RegionOfInterest'](
        **region | {k: v for k, v in fields.items() if k in region}
    )
    values = {
        'header': types['std_msgs/msg/Header'](time, 'camera'),
        'height': height,
        'width': width,
        'distortion_model': 'plumb_bob',
        'd': np.zeros(5),
        'k': np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]),
        'r': np.eye(3).ravel(),
        'p': np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1.0, 0]),
        'binning_x': 0,
        'binning_y': 0,
        'roi': roi,
    }
    return types['sensor_msgs/msg/CameraInfo'](
        **values | {k: v for k, v in fields.items() if k in values}
    )


def pinhole(info, width, height) -> Intrinsics | None:
    found = calibrated([info], info.header, height=height, width=width, rectified=False)
    assert (found.intrinsics is None) == bool(found.fault)
    return found.intrinsics


@pytest.mark.parametrize(
    ('of', 'image', 'expected'),
    [
        ((640, 480), (320, 240), (400, 400, 160, 120)),  # scaled
        ((640, 480), (324, 240), (405, 400, 162, 120)),  # by a driver that rounds
        ((1280, 720), (640, 400), (400, 400, 320, 200)),  # the mode of the info is the middle
        ((640, 480), (640, 360), (800, 800, 320, 180)),  # the image is the middle
        ((1280, 960), (640, 360), (400, 400, 320, 180)),  # and half the size
    ],
)
def test_an_info_of_another_size_is_scaled_or_a_crop_of_the_middle(of, image, expected):
    assert pinhole(info_of(*of), *image) == Intrinsics(*expected, *image)


def test_a_crop_moves_the_principal_point_with_the_middle():
    assert pinhole(info_of(640, 480, cx=330, cy=250), 640, 360) == Intrinsics(
        800, 800, 330, 190, 640, 360
    )


@pytest.mark.parametrize(
    ('of', 'image'),
    [
        ((480, 640), (640, 480)),
        ((640, 480), (500, 480 - 37)),
        ((64, 48), (16, 24)),
        ((640, 480), (1280, 480)),  # left and right picture of a stereo camera in one
        ((640, 480), (640, 960)),
    ],
)
def test_an_info_that_no_scaling_and_no_crop_explains_is_refused_with_both_sizes(of, image):
    info = info_of(*of)
    found = calibrated([info], info.header, height=image[1], width=image[0], rectified=False)
    assert found.info is None
    assert found.intrinsics is None
    for width, height in (of, image):
        assert f'{width}x{height}' in found.fault


def test_a_region_and_binning_count_also_where_the_image_was_resized_afterwards():
    info = info_of(640, 480, cx=320, cy=240, x_offset=100, y_offset=40)
    info.roi.width, info.roi.height = 320, 240
    assert pinhole(info, 320, 240) == Intrinsics(800, 800, 220, 200, 320, 240)
    assert pinhole(info, 160, 120) == Intrinsics(400, 400, 110, 100, 160, 120)
    info.binning_x = info.binning_y = 2
    assert pinhole(info, 160, 120) == Intrinsics(400, 400, 110, 100, 160, 120)
    assert pinhole(info, 80, 60) == Intrinsics(200, 200, 55, 50, 80, 60)


def test_a_region_that_reaches_beyond_the_info_is_refused():
    """Of a driver that counts in other pixels than width and height do; all would be scaled."""
    info = info_of(640, 480, binning_x=2, binning_y=2)
    info.roi.width, info.roi.height = 1280, 960
    found = calibrated([info], info.header, height=480, width=640, rectified=False)
    assert found.intrinsics is None
    assert 'within 640x480, got 1280x960 at 0, 0' in found.fault
    info.roi.width, info.roi.height, info.roi.x_offset = 320, 240, 321
    found = calibrated([info], info.header, height=120, width=160, rectified=False)
    assert '320x240 at 321, 0' in found.fault


@pytest.mark.parametrize(
    ('of', 'focals', 'image', 'is_doubted'),
    [
        ((640, 480), (800, 800), (320, 240), False),
        ((640, 480), (800, 812), (640, 480), False),
        ((640, 480), (800, 830), (640, 480), True),
        ((640, 480), (830, 800), (640, 360), True),  # a crop of the middle
        ((640, 480), (800, 400), (320, 240), True),
        ((1280, 480), (800, 400), (1280, 480), True),
    ],
)
def test_pixels_that_are_not_square_are_doubted_and_used(of, focals, image, is_doubted):
    info = info_of(*of, *focals)
    found = calibrated([info], info.header, height=image[1], width=image[0], rectified=False)
    assert (found.fault, found.intrinsics is None) == ('', False)
    assert bool(found.doubt) == is_doubted
    if is_doubted:
        lens = found.intrinsics
        assert f'got fx {lens.fx_px:g} and fy {lens.fy_px:g} px' in found.doubt


def test_binning_that_squeezes_the_picture_is_doubted():
    info = info_of(1280, 480, binning_x=2, binning_y=1)
    found = calibrated([info], info.header, height=480, width=640, rectified=False)
    assert 'got fx 400 and fy 800 px' in found.doubt


def test_a_fisheye_bends_the_picture_without_any_coefficient():
    assert not is_distorted(info_of(640, 480))
    for model in ('equidistant', 'Kannala_Brandt4', 'double_sphere', 'scaramuzza'):
        assert is_distorted(info_of(640, 480, distortion_model=model, d=np.zeros(4)))


def test_a_topic_is_rectified_where_its_name_says_so_in_a_word():
    rectified = ('image_rect', '/left/image_rect_color/compressed', 'a/rect/image', 'rectified')
    assert all(map(is_rectified, rectified))
    as_they_come = ('image_raw', '/direct/image', 'color_corrected', '/rectangle/image_raw')
    assert not any(map(is_rectified, as_they_come))


def test_an_uncalibrated_camera_stays_one_at_any_size():
    nothing = info_of(640, 480, k=np.zeros(9), p=np.zeros(12))
    found = calibrated([nothing], nothing.header, height=240, width=320, rectified=False)
    assert not found.info.k.any()
    assert 'not calibrated' in found.fault
    assert calibrated([], None, height=240, width=320, rectified=False).fault == NO_INFO


def test_the_rooms_lens_is_the_one_that_models_are_trained_with():
    assert NYU.focal_px / NYU.width == NYU_FOCAL
