# SPDX-License-Identifier: Apache-2.0
"""Messages to arrays and back."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (sensor_msgs)')

from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from smoothdino_model.recordings.calibration import depth_camera_info, intrinsics_of
from smoothdino_model.recordings.depth_images import depth_m_from_bytes
from smoothdino_model.recordings.frames import stamp_ns_of
from smoothdino_ros.conversions import (
    check_at_a_glance,
    depth_message,
    rgb_from_message,
)

ROOT = Path(__file__).parents[2]
NAN, INF = np.nan, np.inf
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def header() -> Header:
    one = Header(frame_id='camera_optical_frame')
    one.stamp.sec, one.stamp.nanosec = 12, 345
    return one


def depth(values, **options) -> Image:
    settings = {'encoding': '32FC1', 'min_depth_m': 0.5, 'max_depth_m': 10.0} | options
    return depth_message(np.array(values, np.float32), header(), **settings)


def test_stamps_are_exact():
    assert stamp_ns_of(header()) == 12_000_000_345


def test_raw_and_compressed_pictures_become_rgb():
    padded = np.pad(RGB[..., ::-1].reshape(5, 21), ((0, 0), (0, 3)))
    raw = Image(height=5, width=7, encoding='bgr8', step=24, data=padded.tobytes())
    np.testing.assert_array_equal(rgb_from_message(raw), RGB)
    png = cv2.imencode('.png', RGB[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(rgb_from_message(CompressedImage(data=png)), RGB)


@pytest.mark.parametrize(
    'message',
    [
        Image(),
        Image(height=2, width=2, encoding='rgb8', step=6, data=b'abcdef'),
        Image(height=0, width=2, encoding='rgb8', step=6, data=b'abcdef'),
        CompressedImage(format='jpeg'),
    ],
)
def test_a_message_without_a_picture_shows_at_a_glance(message):
    with pytest.raises(ValueError, match=r'expected .*, got'):
        check_at_a_glance(message)


def test_what_the_glance_lets_pass_can_be_read():
    whole = Image(height=2, width=2, encoding='rgb8', step=6, data=bytes(12))
    check_at_a_glance(whole)
    assert rgb_from_message(whole).shape == (2, 2, 3)


def test_range_of_32fc1_as_in_rep_117():
    message = depth([[0.4, 0.5, 2.25], [10.0, 10.1, NAN], [0.0, -1.0, INF]])
    assert (message.height, message.width, message.step) == (3, 3, 12)
    assert message.header == header()
    got = np.frombuffer(message.data, np.float32).reshape(3, 3)
    wanted = [[-INF, 0.5, 2.25], [10.0, INF, NAN], [-INF, -INF, INF]]
    np.testing.assert_array_equal(got, np.array(wanted, np.float32))


def test_no_distance_is_never_a_distance():
    got = np.frombuffer(depth([[0.0, 1e-6]], min_depth_m=0.0).data, np.float32)
    np.testing.assert_array_equal(got, np.array([-INF, 1e-6], np.float32))


def test_16uc1_is_millimetres_and_zero_where_unknown():
    message = depth([[0.4, 0.5004, 2.25, 10.0, 10.1, NAN, -1.0, INF]], encoding='16UC1')
    assert message.step == 16
    got = np.frombuffer(message.data, np.uint16)
    np.testing.assert_array_equal(got, [0, 500, 2250, 10000, 0, 0, 0, 0])


@pytest.mark.parametrize('encoding', ['32FC1', '16UC1'])
def test_depth_survives_the_way_there_and_back(encoding):
    depth_m = np.random.default_rng(1).uniform(0.6, 9.0, (4, 6)).astype(np.float32)
    message = depth(depth_m, encoding=encoding)
    got = depth_m_from_bytes(
        message.data,
        encoding=message.encoding,
        height=message.height,
        width=message.width,
        step=message.step,
        is_bigendian=message.is_bigendian,
    )
    np.testing.assert_allclose(got, depth_m, atol=0.0005 if encoding == '16UC1' else 0)


def camera_info() -> CameraInfo:
    info = CameraInfo(height=480, width=640, distortion_model='plumb_bob', d=[0.1, 0, 0, 0, 0])
    info.k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    info.p = [500.0, 0.0, 320.0, -50.0, 0.0, 510.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def test_camera_info_of_the_same_size_is_copied():
    info = camera_info()
    before = copy.deepcopy(info)
    own = depth_camera_info(info, header(), height=480, width=640)
    assert own.header == header()
    own.k[0] = 1.0
    own.header = before.header
    assert info == before
    own.k[0] = 500.0
    assert own == before


def test_camera_info_of_another_size_is_scaled():
    own = depth_camera_info(camera_info(), header(), height=120, width=160)
    assert (own.height, own.width) == (120, 160)
    np.testing.assert_allclose(own.k, [125, 0, 80, 0, 127.5, 60, 0, 0, 1])
    np.testing.assert_allclose(own.p, [125, 0, 80, -12.5, 0, 127.5, 60, 0, 0, 0, 1, 0])


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('huge', [1e308, 1e200, INF, NAN, -1e308])
@pytest.mark.parametrize('width', [160, 640, 6400])
def test_a_huge_k_is_refused_in_words_and_without_a_warning(huge, width):
    info = camera_info()
    for at in (0, 2, 4, 5):
        wrong = copy.deepcopy(info)
        wrong.k[at] = huge
        own = depth_camera_info(wrong, header(), height=width * 3 // 4, width=width)
        with pytest.raises(ValueError, match=r'expected a .* in K, got '):
            intrinsics_of(own, height=width * 3 // 4, width=width, rectified=False)


def test_binning_and_an_info_without_a_size_are_left_to_the_camera():
    info = camera_info()
    info.binning_x = info.binning_y = 2
    binned = depth_camera_info(info, header(), height=240, width=320)
    assert (binned.binning_x, binned.width, binned.k[0]) == (2, 640, 500.0)
    nothing = depth_camera_info(CameraInfo(), header(), height=240, width=320)
    assert (nothing.width, nothing.k[0]) == (0, 0.0)


WORKING_CV_BRIDGE = """
import numpy as np
class CvBridge:
    def imgmsg_to_cv2(self, image, _):
        if image.encoding == 'broken':
            raise TypeError('broken, it is')
        return np.frombuffer(image.data, np.uint8).reshape(2, 2, 3)[..., ::-1]
"""
READ_THREE = """
import logging, sys
from sensor_msgs.msg import Image
from smoothdino_ros.conversions import rgb_from_message
logging.basicConfig(format='%(levelname)s %(message)s')
for encoding in ('rgb565', 'broken', 'bayer_rggb24'):
    image = Image(height=2, width=2, encoding=encoding, step=6, data=bytes(range(12)))
    try:
        print(rgb_from_message(image)[1, 1].tolist())
    except ValueError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ('cv_bridge', 'wanted', 'named'),
    [
        (None, "got 'rgb565'", None),
        (
            'raise ImportError("numpy.core.multiarray failed to import")',
            "got 'rgb565'",
            'ImportError: numpy.core.multiarray failed to import',
        ),
        ('import os; os.abort()', "got 'rgb565'", 'its process ends with -6'),
        ('import sys; sys.exit(3)', "got 'rgb565'", 'its process ends with 3'),
        (WORKING_CV_BRIDGE, '[11, 10, 9]', None),
    ],
    ids=['absent', 'not importable', 'crashing', 'silent', 'working'],
)
def test_cv_bridge_helps_where_it_works_and_is_named_where_it_does_not(
    cv_bridge, wanted, named, tmp_path
):
    if cv_bridge is not None:
        (tmp_path / 'cv_bridge.py').write_text(cv_bridge)
    done = subprocess.run(
        [sys.executable, '-c', READ_THREE],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {'PYTHONPATH': f'{tmp_path}:{ROOT}'},
    )
    first, second, _ = done.stdout.splitlines()
    assert first.endswith(wanted)
    assert 'broken' in second
    warnings = [line for line in done.stderr.splitlines() if line.startswith('WARNING')]
    assert len(warnings) == (named is not None)
    if named:
        assert f'cv_bridge is installed and does not work ({named})' in warnings[0]
        assert np.__version__ in warnings[0]


@pytest.mark.parametrize('big', [False, True], ids=['little', 'big'])
@pytest.mark.parametrize('encoding', ['rgb16', 'bgr16', 'rgba16', 'mono16', 'bayer_grbg16'])
def test_16_bits_of_either_byte_order_are_decoded_without_cv_bridge(encoding, big):
    """The high byte of each value is what the picture of 8 bits has, whatever lies below it."""
    values = np.random.default_rng(3).integers(0, 1 << 16, (6, 8, 4), np.uint16)
    channels = {'rgba16': 4, 'mono16': 1, 'bayer_grbg16': 1}.get(encoding, 3)
    values = values[..., :channels]

    def message(name: str, array: np.ndarray) -> Image:
        step = 8 * channels * array.dtype.itemsize
        fields = {'height': 6, 'width': 8, 'step': step, 'is_bigendian': int(big)}
        return Image(encoding=name, data=array.tobytes(), **fields)

    sixteen = message(encoding, values.astype('>u2' if big else '<u2'))
    eight = message(encoding.replace('16', '8'), (values >> 8).astype(np.uint8))
    np.testing.assert_array_equal(rgb_from_message(sixteen), rgb_from_message(eight))
