# SPDX-License-Identifier: Apache-2.0
"""Pure functions between messages and arrays."""

from __future__ import annotations

import functools
import importlib.util
import logging
import subprocess
import sys

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.depth_images import byte_array, depth_bytes
from smoothdino_model.recordings.image_bytes import UnsupportedEncoding
from smoothdino_model.recordings.images import rgb_of

_log = logging.getLogger(__name__)

# What a cv_bridge built for another numpy does at its first conversion ranges from an ImportError
# to a segmentation fault, so it shows in a process of its own that it works.
_CV_BRIDGE_TRIAL = """
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
image = Image(height=2, width=2, encoding='bgr8', step=6, data=bytes(range(12)))
assert CvBridge().imgmsg_to_cv2(image, 'rgb8').tobytes()[:3] == bytes((2, 1, 0))
"""


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


def rgb_from_message(
    message: Image | CompressedImage, bit_depth: BitDepth | None = None
) -> np.ndarray:
    """(H, W, 3) uint8 RGB; raises ValueError on a message that cannot be decoded.

    bit_depth is that of the camera, by default all of 16 bits. An encoding that images.py lacks
    goes to cv_bridge, where that is installed and works.
    """
    try:
        return rgb_of(message, bit_depth)
    except UnsupportedEncoding:
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
    """Whether it is there and works; one that does not is named in the log, once."""
    if importlib.util.find_spec('cv_bridge') is None:
        return False
    trial = [sys.executable, '-c', _CV_BRIDGE_TRIAL]
    try:
        done = subprocess.run(trial, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        fault = str(error)
    else:
        if done.returncode == 0:
            return True
        words = done.stderr.decode(errors='replace').strip().splitlines()
        killed = done.returncode < 0  # and what it said last is of no cause
        fault = words[-1] if words and not killed else f'its process ends with {done.returncode}'
    _log.warning(
        'cv_bridge is installed and does not work (%.200s), so the encodings that need it are '
        'rejected: install one that is built for numpy %s.',
        fault,
        np.__version__,
    )
    return False


def depth_message(
    depth_m: np.ndarray, header: Header, *, encoding: str, min_depth_m: float, max_depth_m: float
) -> Image:
    """An Image of (H, W) float32 metres, its data as depth_bytes makes it."""
    height, width = depth_m.shape
    data = depth_bytes(
        depth_m, encoding=encoding, min_depth_m=min_depth_m, max_depth_m=max_depth_m
    )
    message = Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=sys.byteorder == 'big',
        step=width * (2 if encoding == '16UC1' else 4),
    )
    message.data = data  # not through the constructor, which copies it
    return message


def rgb_message(rgb: np.ndarray, header: Header) -> Image:
    """An Image of (H, W, 3) uint8 RGB."""
    height, width, _ = rgb.shape
    message = Image(header=header, height=height, width=width, encoding='rgb8', step=width * 3)
    message.data = byte_array(rgb)
    return message
