# SPDX-License-Identifier: Apache-2.0
"""Depth images: bytes, compressed and PNG files to metres, metres to bytes and to colours."""

from __future__ import annotations

import array
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from smoothdino_model.recordings.image_bytes import (
    MAX_PIXELS,
    UnsupportedEncoding,
    bytes_of,
    image_fields,
    known,
    ordered,
    pixels_of,
    png_size,
)
from smoothdino_model.recordings.rvl import from_rvl, to_rvl

_LEVELS = np.arange(256, dtype=np.uint8).reshape(256, 1)
_DEPTH_COLORS = cv2.cvtColor(  # (256, 1, 3), as OpenCV wants a table
    cv2.applyColorMap(_LEVELS, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB
)
_DEPTH_COLORS[0] = 0  # unknown
NYU_MAX_DEPTH_M = 10.0  # what 255 means in 8-bit depth
_PLAIN_PNG = ('16UC1', 'png compressed')  # of compressed_image_transport
_DEPTH = {'32FC1': ('f4', 1.0), '16UC1': ('u2', 0.001)}  # number, metres per unit
_QUANTIZATION_M = 100.0  # of compressed_depth by default: where a step is a metre


def depth_m_from_bytes(
    data: Any, *, encoding: str, height: int, width: int, step: int, is_bigendian: bool
) -> np.ndarray:
    """(H, W) float32 metres from 32FC1 (metres) or 16UC1 (millimetres), as in REP 118.

    NaN where nothing was measured: 0 in both, and what is negative or not finite in 32FC1.
    data, step and errors as in rgb_from_bytes.
    """
    number, scale = known(encoding, _DEPTH)
    dtype = ordered(number, is_bigendian)
    depth_m = pixels_of(data, encoding, height, width, step, 1, dtype).astype(np.float32)
    depth_m *= np.float32(scale)
    depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return depth_m


def depth_m_of(message: Any) -> np.ndarray:
    """(H, W) float32 metres of an Image or CompressedImage, rclpy's or rosbags'; as below."""
    if hasattr(message, 'format'):
        return depth_m_from_compressed(message.data, form=message.format)
    return depth_m_from_bytes(**image_fields(message))


def depth_m_from_compressed(data: Any, *, form: str) -> np.ndarray:
    """(H, W) float32 metres from a 16-bit PNG or RVL, NaN where nothing was measured.

    form is the format of a CompressedImage: '16UC1; compressedDepth' or '32FC1; compressedDepth',
    with 'png', 'rvl' or nothing (png) behind, or '16UC1; png compressed'.
    compressed_depth_image_transport puts 12 bytes before the picture, a number and two floats a
    and b; of 32FC1 the picture holds a / depth + b. Raises UnsupportedEncoding, and ValueError on
    a broken picture.
    """
    encoding, _, kind = (part.strip() for part in form.partition(';'))
    with_header = kind in ('compressedDepth', 'compressedDepth png', 'compressedDepth rvl')
    if encoding not in _DEPTH or not (with_header or (encoding, kind) == _PLAIN_PNG):
        raise UnsupportedEncoding(
            'expected 16UC1 or 32FC1 as compressedDepth in PNG or RVL, or 16UC1 in PNG, got '
            f'{form!r:.80}'
        )
    raw = bytes_of(data)
    picture = raw[12:] if with_header else raw
    stored = _from_rvl(picture) if kind.endswith('rvl') else _from_png(picture)
    if encoding == '16UC1':
        depth_m = stored * np.float32(0.001)
    else:
        a, b = np.frombuffer(raw[4:12].tobytes(), '<f4')
        with np.errstate(divide='ignore', invalid='ignore'):
            depth_m = a / (stored.astype(np.float32) - b)
    depth_m[(stored == 0) | ~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return depth_m


def _from_png(png: np.ndarray) -> np.ndarray:
    """(H, W) uint16."""
    size = png_size(png.tobytes())
    if size is None:
        raise ValueError(f'expected depth in a whole PNG, got {png.size} bytes of something else')
    _check_size(*size)
    stored = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 2:
        raise ValueError('expected a whole PNG of one channel of 16 bit')
    return stored


def _from_rvl(rvl: np.ndarray) -> np.ndarray:
    """(H, W) uint16 from width and height, 32 bits each, and the picture behind them."""
    if rvl.size < 8:
        raise ValueError(f'expected depth in whole RVL, got {rvl.size} bytes')
    width, height = (int(n) for n in np.frombuffer(rvl[:8].tobytes(), '<u4'))
    if width < 1 or height < 1:
        raise ValueError(f'expected depth of at least 1x1 pixels, got {width}x{height}')
    _check_size(width, height)
    return from_rvl(rvl[8:], width * height).reshape(height, width)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f'expected depth of at most {MAX_PIXELS} pixels, got {width}x{height}')


def depth_m_from_png(path: Path) -> np.ndarray | None:
    """(H, W) float32 metres, NaN where it is 0, unknown; None for a PNG that holds colours.

    16 bit are millimetres; 8 bit are those of NYUv2, of which 255 is 10 m.
    """
    stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise ValueError(f'expected a whole depth PNG {path.name}, got a broken one')
    if stored.ndim != 2:
        return None
    metres_per_unit = NYU_MAX_DEPTH_M / 255 if stored.dtype == np.uint8 else 0.001
    depth_m = stored.astype(np.float32) * np.float32(metres_per_unit)
    depth_m[stored == 0] = np.nan
    return depth_m


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


def compressed_depth(
    depth_m: np.ndarray,
    *,
    encoding: str,
    kind: str,
    png_level: int,
    min_depth_m: float,
    max_depth_m: float,
) -> tuple[str, array.array]:
    """(H, W) float32 metres as format and data of a CompressedImage, as compressed_depth has them.

    kind is png, of a level from 0 (fast) to 9 (small), or rvl. 16UC1 holds its millimetres; 32FC1
    the whole part of a / depth + b, in steps of depth² / 10100: a centimetre at 10 m. Unknown, 0,
    is what is out of range, and in 32FC1 what is nearer than about 0.15 m, for which 16 bits have
    no number. The rule is that of codec.cpp in image_transport_plugins.
    """
    if encoding == '16UC1':
        a = b = np.float32(0)
        millimetres = depth_bytes(
            depth_m, encoding=encoding, min_depth_m=min_depth_m, max_depth_m=max_depth_m
        )
        stored = np.frombuffer(millimetres, np.uint16).reshape(depth_m.shape)
    else:
        a = np.float32(_QUANTIZATION_M * (_QUANTIZATION_M + 1))
        b = np.float32(1) - a / np.float32(max_depth_m)
        with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
            inverse = a / depth_m.astype(np.float32, copy=False) + b
            known = (depth_m >= min_depth_m) & (depth_m < max_depth_m)
            known &= inverse < 65536  # where the plugin would begin again at 0
        stored = np.where(known, inverse, 0).astype(np.uint16)
    data = array.array('B', struct.pack('<iff', 0, a, b))
    if kind == 'rvl':
        height, width = depth_m.shape
        data.frombytes(struct.pack('<II', width, height))
        data.frombytes(to_rvl(stored).data)
    else:
        png = cv2.imencode('.png', stored, [cv2.IMWRITE_PNG_COMPRESSION, png_level])[1]
        data.frombytes(png.data)
    return f'{encoding}; compressedDepth {kind}', data


def byte_array(pixels: np.ndarray) -> array.array:
    """The one type that rclpy's messages take as data without a check of each byte."""
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(pixels).data.cast('B'))
    return data


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
