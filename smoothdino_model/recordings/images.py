# SPDX-License-Identifier: Apache-2.0
"""Pictures as they are sent and stored, to RGB: raw bytes, JPEG, PNG and other files."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from smoothdino_model.recordings.image_bytes import (
    JPEG,
    MAX_PIXELS,
    PNG,
    bytes_of,
    check_sides,
    declared_size,
    known,
    ordered,
    pixels_of,
)

# A Huffman code is a bit at least, and 8x8 pixels take one: what no whole JPEG can exceed.
_JPEG_PIXELS_PER_BYTE = 512

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


def rgb_from_bytes(
    data: Any, *, encoding: str, height: int, width: int, step: int, is_bigendian: bool
) -> np.ndarray:
    """(H, W, 3) uint8 RGB, C-contiguous, sharing no memory with data.

    data is bytes, bytearray, memoryview, array.array or a contiguous numpy array; step is the
    length of a row in bytes, padding included. Of mono16 the high byte is kept.
    Raises UnsupportedEncoding or, where the fields contradict each other, ValueError.
    """
    channels, conversion = known(encoding, _COLOR)
    dtype = ordered('u2', is_bigendian) if encoding == 'mono16' else np.dtype('u1')
    pixels = pixels_of(data, encoding, height, width, step, channels, dtype)
    check_sides(width, height)
    if channels == 2 and width % 2:
        raise ValueError(f'expected an even width for {encoding}, got {width}')
    if encoding.startswith('bayer') and min(height, width) < 3:
        raise ValueError(f'expected at least 3x3 pixels for {encoding}, got {width}x{height}')
    if encoding == 'mono16':
        pixels = (pixels >> 8).astype(np.uint8)
    if conversion is None:
        return pixels.copy()
    return cv2.cvtColor(pixels, conversion)


def rgb_from_compressed(data: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB from a JPEG or a PNG.

    Grey becomes three equal channels, alpha is dropped, 16 bit becomes 8, and a rotation noted in
    EXIF is applied. Raises ValueError on a broken picture, on another format, and, before
    anything is decoded, on one of more than MAX_PIXELS pixels.
    """
    raw = bytes_of(data)
    size = declared_size(raw.tobytes())
    if size is None:
        raise ValueError(f'expected a whole JPEG or PNG picture, got {raw.size} bytes of neither')
    width, height = size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f'expected a picture of at most {MAX_PIXELS} pixels, got {width}x{height}'
        )
    if raw[0] == JPEG[0] and width * height > _JPEG_PIXELS_PER_BYTE * raw.size:
        raise ValueError(
            f'expected a whole JPEG, got {raw.size} bytes, too few for {width}x{height} pixels'
        )
    check_sides(width, height)
    return _decoded(raw)


def rgb_from_file(data: Any) -> np.ndarray:
    """As rgb_from_compressed, and other formats too, with OpenCV's own limit of their size.

    For files of the user's own: the size that those claim is not known before they are decoded.
    """
    raw = bytes_of(data)
    if raw[:8].tobytes().startswith((PNG, JPEG)):
        return rgb_from_compressed(raw)
    return _decoded(raw)


def _decoded(raw: np.ndarray) -> np.ndarray:
    try:
        bgr = cv2.imdecode(raw, cv2.IMREAD_COLOR)
    except cv2.error:
        bgr = None
    if bgr is None:
        raise ValueError(f'expected a whole picture, got {raw.size} bytes that do not decode')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
