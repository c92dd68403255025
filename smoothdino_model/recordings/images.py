# SPDX-License-Identifier: Apache-2.0
"""Raw image bytes to arrays, by the fields of sensor_msgs/Image and CompressedImage.

The functions take the fields, not a message, so that rclpy's messages, rosbags' messages and
files share them. Every field is checked against the length of the data before a pixel is
touched, so what is allocated is bounded by what was received.
"""

from __future__ import annotations

import array
import operator
from typing import Any

import cv2
import numpy as np

MAX_PIXELS = 7680 * 4320  # of a compressed picture, which can claim any size in a few bytes
# A Huffman code is a bit at least, and 8x8 pixels take one: what no whole JPEG can exceed.
_JPEG_PIXELS_PER_BYTE = 512
# A picture of one row, brought to the height of a network, would be wider than any memory.
MAX_SIDES = 8  # the longer one to the shorter
_PNG, _JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8'

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
_LEVELS = np.arange(256, dtype=np.uint8).reshape(256, 1)
_DEPTH_COLORS = cv2.cvtColor(  # (256, 1, 3), as OpenCV wants a table
    cv2.applyColorMap(_LEVELS, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB
)
_DEPTH_COLORS[0] = 0  # unknown
_DEPTH = {'32FC1': ('f4', 1.0), '16UC1': ('u2', 0.001)}  # number, metres per unit


def image_fields(message: Any) -> dict[str, Any]:
    """What rgb_from_bytes and depth_m_from_bytes take, of an Image of rclpy's or of rosbags'."""
    names = ('data', 'encoding', 'height', 'width', 'step', 'is_bigendian')
    return {name: getattr(message, name) for name in names}


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
    _check_sides(width, height)
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


def depth_m_from_compressed(data: Any, *, form: str) -> np.ndarray:
    """(H, W) float32 metres from a 16-bit PNG, NaN where nothing was measured.

    form is the format of a CompressedImage: '16UC1; compressedDepth' or '32FC1; compressedDepth',
    with 'png' behind or not, or '16UC1; png compressed'. compressed_depth_image_transport puts 12
    bytes before the PNG, a number and two floats a and b; of 32FC1 the PNG holds a / depth + b.
    Raises UnsupportedEncoding, and ValueError on a broken picture.
    """
    encoding, _, kind = (part.strip() for part in form.partition(';'))
    with_header = 'compressedDepth' in kind
    if encoding not in _DEPTH or kind.endswith('rvl') or not (with_header or encoding == '16UC1'):
        raise UnsupportedEncoding(
            f'expected 16UC1 or 32FC1 as compressedDepth in PNG, or 16UC1 in PNG, got {form!r:.80}'
        )
    raw = _bytes_of(data)
    png = raw[12:] if with_header else raw
    size = _declared_size(png.tobytes())
    if size is None or not png[:8].tobytes() == _PNG:
        raise ValueError(f'expected depth in a whole PNG, got {raw.size} bytes of something else')
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f'expected depth of at most {MAX_PIXELS} pixels, got {size[0]}x{size[1]}')
    stored = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 2:
        raise ValueError('expected a whole PNG of one channel of 16 bit')
    if encoding == '16UC1':
        depth_m = stored * np.float32(0.001)
    else:
        a, b = np.frombuffer(raw[4:12].tobytes(), '<f4')
        with np.errstate(divide='ignore', invalid='ignore'):
            depth_m = a / (stored.astype(np.float32) - b)
    depth_m[(stored == 0) | ~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return depth_m


def rgb_from_compressed(data: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB from a JPEG or a PNG.

    Grey becomes three equal channels, alpha is dropped, 16 bit becomes 8, and a rotation noted in
    EXIF is applied. Raises ValueError on a broken picture, on another format, and, before
    anything is decoded, on one of more than MAX_PIXELS pixels.
    """
    raw = _bytes_of(data)
    size = _declared_size(raw.tobytes())
    if size is None:
        raise ValueError(f'expected a whole JPEG or PNG picture, got {raw.size} bytes of neither')
    width, height = size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f'expected a picture of at most {MAX_PIXELS} pixels, got {width}x{height}'
        )
    if raw[0] == _JPEG[0] and width * height > _JPEG_PIXELS_PER_BYTE * raw.size:
        raise ValueError(
            f'expected a whole JPEG, got {raw.size} bytes, too few for {width}x{height} pixels'
        )
    _check_sides(width, height)
    return _decoded(raw)


def rgb_from_file(data: Any) -> np.ndarray:
    """As rgb_from_compressed, and other formats too, with OpenCV's own limit of their size.

    For files of the user's own: the size that those claim is not known before they are decoded.
    """
    raw = _bytes_of(data)
    if raw[:8].tobytes().startswith((_PNG, _JPEG)):
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


def _check_sides(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDES * min(width, height):
        raise ValueError(
            f'expected sides of at most {MAX_SIDES} to 1, got {width}x{height} pixels'
        )


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
    """(width, height) from the header of a PNG or JPEG, None where there is none.

    Finds the markers of a JPEG as libjpeg does, which skips what lies between its segments.
    Raises ValueError for a JPEG without its end mark: older OpenCV fills the rest with grey.
    """
    if data.startswith(_PNG) and len(data) >= 24:
        return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
    if not data.startswith(_JPEG):
        return None
    size, at = None, 2
    while 0 <= (at := data.find(b'\xff', at)) < len(data) - 8:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7:  # no segment follows
            at += 2
        elif marker == 0xDA:  # the scan follows, in which FF D9 is the end and nothing else
            if data.find(b'\xff\xd9', at) < 0:
                raise ValueError(f'expected a whole JPEG, got {len(data)} bytes without its end')
            return size
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
                height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
                size = int.from_bytes(width, 'big'), int.from_bytes(height, 'big')
            at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return None


def rgb_from_depth(depth_m: np.ndarray, *, near_m: float, far_m: float) -> np.ndarray:
    """Colour depth (H, W): yellow at ``near_m`` and nearer, over green, to violet at ``far_m`` and
    farther, black where it is unknown (NaN or infinite).

    The colours are viridis, of which equal steps look equal, also to the colour-blind and in grey.
    """
    per_m = 254 / max(far_m - near_m, 1e-6)
    with np.errstate(invalid='ignore', over='ignore'):
        levels = np.multiply(depth_m, -per_m, dtype=np.float32)
        levels += far_m * per_m + 1
        np.clip(levels, 1, 255, out=levels)
        levels[~np.isfinite(depth_m)] = 0
        return cv2.applyColorMap(levels.astype(np.uint8), _DEPTH_COLORS)


def depth_bytes(
    depth_m: np.ndarray, *, encoding: str, min_depth_m: float, max_depth_m: float
) -> array.array:
    """(H, W) float32 metres as the data of an Image as in REP 118, its range as in REP 117.

    32FC1: metres; NaN stays, -Inf is closer than min_depth_m (or no distance at all: 0 or less),
    +Inf is beyond max_depth_m. 16UC1: millimetres, 0 for all of these. In this machine's byte
    order, without padding.
    """
    with np.errstate(invalid='ignore'):
        too_close = depth_m < min_depth_m if min_depth_m > 0 else depth_m <= 0
        too_far = depth_m > max_depth_m
    if encoding == '16UC1':
        known = ~(too_close | too_far | np.isnan(depth_m))
        return byte_array(np.rint(np.where(known, depth_m, 0) * 1000).astype(np.uint16))
    if encoding != '32FC1':
        raise UnsupportedEncoding(f'expected 32FC1 or 16UC1, got {encoding!r:.80}')
    data = byte_array(depth_m.astype(np.float32, copy=False))
    # In place, because each fresh array of this size costs about a millisecond.
    pixels = np.frombuffer(data, np.float32).reshape(depth_m.shape)
    for where, value in ((too_close, -np.inf), (too_far, np.inf)):
        if where.any():
            np.copyto(pixels, value, where=where)
    return data


def byte_array(pixels: np.ndarray) -> array.array:
    """The one type that rclpy's messages take as data without a check of each byte."""
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(pixels).data.cast('B'))
    return data
