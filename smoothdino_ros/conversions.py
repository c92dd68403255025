# SPDX-License-Identifier: Apache-2.0
"""Pure functions between messages and arrays."""

from __future__ import annotations

import array
import copy
import functools
import importlib.util
import subprocess
import sys

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from smoothdino_model import images

# What a cv_bridge built for another numpy does at its first conversion ranges from an ImportError
# to a segmentation fault, so it shows in a process of its own that it works.
_CV_BRIDGE_TRIAL = """
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
image = Image(height=2, width=2, encoding='bgr8', step=6, data=bytes(range(12)))
assert CvBridge().imgmsg_to_cv2(image, 'rgb8').tobytes()[:3] == bytes((2, 1, 0))
"""


def stamp_ns(header: Header) -> int:
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def check_at_a_glance(message: Image | CompressedImage) -> None:
    """Raise ValueError where the fields alone show that there is no picture in the message.

    Cheap enough for the callback, where it keeps such a message from displacing a good one.
    """
    size = len(message.data)
    if isinstance(message, CompressedImage):
        if size == 0:
            raise ValueError('expected a compressed picture, got no data')
        return
    if min(message.height, message.width) < 1:
        raise ValueError(
            f'expected at least 1x1 pixels, got {message.width}x{message.height} pixels'
        )
    if size <= message.step * (message.height - 1):
        raise ValueError(
            f'expected {message.height} rows of {message.step} bytes, got {size} bytes in all'
        )


def rgb_from_message(message: Image | CompressedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB; raises ValueError on a message that cannot be decoded.

    An encoding that images.py lacks goes to cv_bridge, where that is installed and works.
    """
    if isinstance(message, CompressedImage):
        return images.rgb_from_compressed(message.data)
    try:
        return images.rgb_from_bytes(
            message.data,
            encoding=message.encoding,
            height=message.height,
            width=message.width,
            step=message.step,
            is_bigendian=bool(message.is_bigendian),
        )
    except images.UnsupportedEncoding:
        if not _cv_bridge_works():
            raise
    from cv_bridge import CvBridge

    try:
        rgb = np.ascontiguousarray(CvBridge().imgmsg_to_cv2(message, 'rgb8'))
    except Exception as error:  # it raises TypeErrors, RuntimeErrors and OpenCV's own
        raise ValueError(
            f'cv_bridge cannot decode the encoding {message.encoding!r:.80}: {error}'
        ) from error
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f'cv_bridge made no RGB image of the encoding {message.encoding!r:.80}')
    return rgb


@functools.cache
def _cv_bridge_works() -> bool:
    if importlib.util.find_spec('cv_bridge') is None:
        return False
    trial = [sys.executable, '-c', _CV_BRIDGE_TRIAL]
    try:
        return subprocess.run(trial, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def depth_message(
    depth_m: np.ndarray, header: Header, *, encoding: str, min_depth_m: float, max_depth_m: float
) -> Image:
    """An Image of (H, W) float32 metres as in REP 118, its range as in REP 117.

    32FC1: metres; NaN stays, -Inf is closer than min_depth_m (or no distance at all: 0 or less),
    +Inf is beyond max_depth_m. 16UC1: millimetres, 0 for all of these.
    """
    height, width = depth_m.shape
    with np.errstate(invalid='ignore'):
        too_close = (depth_m < min_depth_m) | (depth_m <= 0)
        too_far = depth_m > max_depth_m
    if encoding == '16UC1':
        known = ~(too_close | too_far | np.isnan(depth_m))
        data = _bytes_array(np.rint(np.where(known, depth_m, 0) * 1000).astype(np.uint16))
    else:
        data = _bytes_array(depth_m.astype(np.float32, copy=False))
        # In place, because each fresh array of this size costs about a millisecond.
        pixels = np.frombuffer(data, np.float32).reshape(depth_m.shape)
        np.copyto(pixels, -np.inf, where=too_close)
        np.copyto(pixels, np.inf, where=too_far)
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=sys.byteorder == 'big',
        step=width * (2 if encoding == '16UC1' else 4),
        data=data,
    )


def rgb_message(rgb: np.ndarray, header: Header) -> Image:
    """An Image of (H, W, 3) uint8 RGB."""
    height, width, _ = rgb.shape
    data = _bytes_array(rgb)
    return Image(
        header=header, height=height, width=width, encoding='rgb8', step=width * 3, data=data
    )


def depth_camera_info(info: CameraInfo, header: Header, *, height: int, width: int) -> CameraInfo:
    """A copy of the camera's info for its depth image of this size, with the image's header.

    Where the info is for another size, K and P are scaled (as image_proc's resize does, the
    principal point included) and its region and binning, then of no meaning, are cleared. An info
    without a size is passed on as it is.
    """
    own = copy.deepcopy(info)
    own.header = header
    binned_height = (info.roi.height or info.height) // max(info.binning_y, 1)
    binned_width = (info.roi.width or info.width) // max(info.binning_x, 1)
    if (binned_height, binned_width) == (height, width) or not (info.height and info.width):
        return own
    x, y = width / info.width, height / info.height
    own.k = info.k * np.repeat([x, y, 1.0], 3)
    own.p = info.p * np.repeat([x, y, 1.0], 4)
    own.height, own.width = height, width
    own.binning_x = own.binning_y = 0
    own.roi = type(info.roi)()
    return own


def _bytes_array(pixels: np.ndarray) -> array.array:
    """The one type that a message's data takes without a check of each byte."""
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(pixels).data.cast('B'))
    return data
