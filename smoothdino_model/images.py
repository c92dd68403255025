# SPDX-License-Identifier: Apache-2.0
"""Raw image bytes to arrays, by the fields of sensor_msgs/Image and CompressedImage.

The functions take the fields, not a message, so that rclpy's messages, rosbags' messages and
files share them. Every field is checked against the length of the data before a pixel is
touched, so what is allocated is bounded by what was received.
"""

from __future__ import annotations

import operator
from typing import Any

import cv2
import numpy as np

MAX_PIXELS = 100_000_000  # of a compressed picture, which can claim any size in a few bytes

# encoding -> (channels, OpenCV's conversion to RGB; None: RGB already)
# 8UC1 and 8UC3 name no colour: taken as grey and as BGR, like cv_bridge.
# A two-channel YUV 4:2:2 pixel is Y and either U or V, converted as BT.601 limited range.
# OpenCV names a Bayer pattern by the second row from its second pixel on, ROS by the first row.
_COLOR = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
    'mono16': (1, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, cv2.COLOR_GRAY2RGB),
    '8UC3': (3, cv2.COLOR_BGR2RGB),
    'yuv422': (2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': (2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': (2, cv2.COLOR_YUV2RGB_YUY2),
    'bayer_rggb8': (1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': (1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': (1, cv2.COLOR_BayerGB2RGB),
}
_DEPTH = {'32FC1': ('f4', 1.0), '16UC1': ('u2', 0.001)}  # number, metres per unit


class UnsupportedEncoding(ValueError):  # noqa: N818 -- it reads well where it is caught
    """An encoding that is not decoded here; the message names those that are."""


def rgb_from_bytes(
    data: Any, *, encoding: str, height: int, width: int, step: int, is_bigendian: bool
) -> np.ndarray:
    """(H, W, 3) uint8 RGB, C-contiguous, sharing no memory with data.

    data is bytes, bytearray, memoryview, array.array or a contiguous numpy array; step is the
    length of a row in bytes, padding included. Of mono16 the high byte is kept.
    Raises UnsupportedEncoding or, where the fields contradict each other, ValueError.
    """
    channels, conversion = _known(encoding, _COLOR)
    dtype = _ordered('u2', is_bigendian) if encoding == 'mono16' else np.dtype('u1')
    pixels = _pixels(data, encoding, height, width, step, channels, dtype)
    if channels == 2 and width % 2:
        raise ValueError(f'expected an even width for {encoding}, got {width}')
    if encoding.startswith('bayer') and min(height, width) < 3:
        raise ValueError(f'expected at least 3x3 pixels for {encoding}, got {width}x{height}')
    if encoding == 'mono16':
        pixels = (pixels >> 8).astype(np.uint8)
    if conversion is None:
        return pixels.copy()
    return cv2.cvtColor(pixels, conversion)


def depth_m_from_bytes(
    data: Any, *, encoding: str, height: int, width: int, step: int, is_bigendian: bool
) -> np.ndarray:
    """(H, W) float32 metres from 32FC1 (metres) or 16UC1 (millimetres), as in REP 118.

    NaN where nothing was measured: 0 in both, and what is negative or not finite in 32FC1.
    data, step and errors as in rgb_from_bytes.
    """
    number, scale = _known(encoding, _DEPTH)
    dtype = _ordered(number, is_bigendian)
    depth_m = _pixels(data, encoding, height, width, step, 1, dtype).astype(np.float32)
    depth_m *= np.float32(scale)
    depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return depth_m


def rgb_from_compressed(data: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB from a JPEG, a PNG or another format that OpenCV reads.

    Grey becomes three equal channels, alpha is dropped, 16 bit becomes 8, and a rotation
    noted in EXIF is applied. Raises ValueError on a broken picture and on one of more than
    MAX_PIXELS pixels (JPEG and PNG; OpenCV has its own limit for the others).
    """
    raw = _bytes_of(data)
    size = _declared_size(raw.tobytes())
    if size and size[0] * size[1] > MAX_PIXELS:
        raise ValueError(
            f'expected a picture of at most {MAX_PIXELS} pixels, got {size[0]}x{size[1]}'
        )
    try:
        bgr = cv2.imdecode(raw, cv2.IMREAD_COLOR)
    except cv2.error:
        bgr = None
    if bgr is None:
        raise ValueError(
            f'expected a whole JPEG or PNG picture, got {raw.size} bytes that do not decode'
        )
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _known(encoding: Any, known: dict[str, tuple]) -> tuple:
    if not isinstance(encoding, str) or encoding not in known:
        raise UnsupportedEncoding(
            f'expected one of the encodings {", ".join(known)}, got {encoding!r:.80}'
        )
    return known[encoding]


def _ordered(number: str, is_bigendian: Any) -> np.dtype:
    return np.dtype(('>' if is_bigendian else '<') + number)


def _bytes_of(data: Any) -> np.ndarray:
    """(N,) uint8, a view of data."""
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError):
        raise ValueError(f'expected contiguous bytes, got {type(data).__name__}') from None


def _pixels(
    data: Any, encoding: str, height: int, width: int, step: int, channels: int, dtype: np.dtype
) -> np.ndarray:
    """(H, W) or (H, W, channels), a view of data without the padding of its rows."""
    try:
        height, width, step = (operator.index(n) for n in (height, width, step))
    except TypeError:
        raise ValueError(
            f'expected integers, got height {height!r:.40}, width {width!r:.40}, step {step!r:.40}'
        ) from None
    if height < 1 or width < 1:
        raise ValueError(f'expected a picture of at least 1x1 pixels, got {width}x{height}')
    row = width * channels * dtype.itemsize
    if step < row:
        raise ValueError(
            f'expected a step of at least {row} bytes for {width} pixels of {encoding}, got {step}'
        )
    raw = _bytes_of(data)
    # Some drivers leave out the padding of the last row.
    if not step * (height - 1) + row <= raw.size <= step * height:
        raise ValueError(
            f'expected {step * height} bytes ({height} rows of {step}), got {raw.size}'
        )
    pixel = channels * dtype.itemsize
    if channels == 1:
        return np.ndarray((height, width), dtype, raw, strides=(step, pixel))
    strides = (step, pixel, dtype.itemsize)
    return np.ndarray((height, width, channels), dtype, raw, strides=strides)


def _declared_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the header of a PNG or JPEG, None where it does not say.

    Raises ValueError for a JPEG without its end mark: older OpenCV fills the rest with grey.
    """
    if data[:8] == b'\x89PNG\r\n\x1a\n' and len(data) >= 24:
        return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
    if data[:2] != b'\xff\xd8':
        return None
    size, at = None, 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:  # the scan follows, in which FF D9 is the end and nothing else
            if data.find(b'\xff\xd9', at) < 0:
                raise ValueError(f'expected a whole JPEG, got {len(data)} bytes without its end')
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            size = int.from_bytes(width, 'big'), int.from_bytes(height, 'big')
        at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return size


def rgb_from_depth(depth_m: np.ndarray, *, near_m: float, far_m: float) -> np.ndarray:
    """Colour depth (H, W): red at ``near_m``, blue at ``far_m``, black where it is unknown."""
    known = np.isfinite(depth_m)
    nearness = (far_m - np.where(known, depth_m, far_m)) / max(far_m - near_m, 1e-6)
    levels = (np.clip(nearness, 0, 1) * 255).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return colors * known[..., None].astype(np.uint8)
