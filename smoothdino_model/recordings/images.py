# SPDX-License-Identifier: Apache-2.0
"""Pictures as they are sent and stored, to RGB: raw bytes, JPEG, PNG and other files."""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np

from smoothdino_model.recordings.bit_depth import BitDepth, full_range
from smoothdino_model.recordings.image_bytes import (
    MAX_PIXELS,
    PNG,
    bytes_of,
    check_sides,
    check_spelling,
    image_fields,
    known,
    ordered,
    pixels_of,
    png_size,
    whole_numbers,
)
from smoothdino_model.recordings.jpeg import START as JPEG
from smoothdino_model.recordings.jpeg import check_scan, header_of
from smoothdino_model.recordings.netpbm import LONGEST_HEADER, stretched, white_of

# A Huffman code is a bit at least, and 8x8 pixels take one: what no whole JPEG can exceed.
_JPEG_PIXELS_PER_BYTE = 512

# encoding -> (channels, bytes of a value, OpenCV's conversion to RGB; None: RGB already)
# 8UC1, 8UC3 and 8UC4 name no colour: taken as grey, BGR and BGRA, like cv_bridge.
# A two-channel YUV 4:2:2 pixel is Y and either U or V, converted as BT.601 limited range.
_PACKED = {
    'rgb8': (3, 1, None),
    'bgr8': (3, 1, cv2.COLOR_BGR2RGB),
    'rgba8': (4, 1, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, 1, cv2.COLOR_BGRA2RGB),
    'rgb16': (3, 2, None),
    'bgr16': (3, 2, cv2.COLOR_BGR2RGB),
    'rgba16': (4, 2, cv2.COLOR_RGBA2RGB),
    'bgra16': (4, 2, cv2.COLOR_BGRA2RGB),
    'mono8': (1, 1, cv2.COLOR_GRAY2RGB),
    'mono16': (1, 2, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, 1, cv2.COLOR_GRAY2RGB),
    '8UC3': (3, 1, cv2.COLOR_BGR2RGB),
    '8UC4': (4, 1, cv2.COLOR_BGRA2RGB),
    'yuv422': (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (2, 1, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': (2, 1, cv2.COLOR_YUV2RGB_YUY2),
}
# OpenCV names a Bayer pattern by the second row from its second pixel on, ROS by the first row.
_MOSAICS = {
    f'bayer_{pattern}{8 * size}': (1, size, conversion)
    for size in (1, 2)
    for pattern, conversion in (
        ('rggb', cv2.COLOR_BayerBG2RGB),
        ('bggr', cv2.COLOR_BayerRG2RGB),
        ('gbrg', cv2.COLOR_BayerGR2RGB),
        ('grbg', cv2.COLOR_BayerGB2RGB),
    )
}
# A plane of Y and one of U and V in turns (V and U in nv21), at half the height and width but
# for nv24. encoding -> (bytes in all to those of Y, OpenCV's conversion)
_PLANAR = {
    'nv12': (1.5, cv2.COLOR_YUV2RGB_NV12),
    'nv21': (1.5, cv2.COLOR_YUV2RGB_NV21),
    'nv24': (3.0, cv2.COLOR_YUV2RGB_YUY2),
}
_ENCODINGS: dict[str, tuple] = {**_PACKED, **_MOSAICS, **_PLANAR}
# Of numbers that name no colour, those of OpenCV's types: depth, disparity, temperatures.
_NUMBERS = re.compile(r'(8|16|32|64)[USF]C\d*')


class NoPicture(ValueError):  # noqa: N818 -- it reads well where it is caught
    """An image message of depth or other measurements; the message says what to take instead."""


def carries_picture(message: Any) -> bool:
    """Whether an Image or a CompressedImage is one of colours or grey, by what it says of itself.

    One of an encoding that is not known here counts as one.
    """
    return (
        _is_picture(*_halves(message.format))
        if hasattr(message, 'format')
        else _is_picture(message.encoding, '')
    )


def _halves(form: str) -> tuple[str, str]:
    """Give what a CompressedImage was, '' where it is not said, and how it is compressed.

    Some drivers say only the first.
    """
    encoding, separator, kind = form.partition(';')
    if separator:
        return encoding, kind.strip()
    alone = form.strip()
    is_encoding = alone in _ENCODINGS or _NUMBERS.fullmatch(alone)
    return (alone, '') if is_encoding else ('', alone)


def _is_picture(encoding: str, kind: str) -> bool:
    if 'Depth' in kind:  # some depth is sent as mono16
        return False
    return encoding in _ENCODINGS or not _NUMBERS.fullmatch(encoding)


def _no_picture(got: str) -> NoPicture:
    return NoPicture(
        f'expected a picture, got {got!r:.80}, which is of depth or other measurements: take the '
        "topic of the camera's colour or grey images (often image_raw, image_color or image_rect)"
    )


def rgb_of(message: Any, bit_depth: BitDepth | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an Image or CompressedImage, rclpy's or rosbags'; errors as below."""
    if hasattr(message, 'format'):
        return rgb_from_compressed(message.data, form=message.format, bit_depth=bit_depth)
    return rgb_from_bytes(**image_fields(message), bit_depth=bit_depth)


def rgb_from_bytes(
    data: Any,
    *,
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool,
    bit_depth: BitDepth | None = None,
) -> np.ndarray:
    """(H, W, 3) uint8 RGB, C-contiguous, sharing no memory with data.

    data is bytes, bytearray, memoryview, array.array or a contiguous numpy array; step is the
    length of a row in bytes, padding included (of the planar nv12, nv21 and nv24 a row of Y).
    bit_depth says what is white in 16 bits, by default all of them.
    Raises UnsupportedEncoding, NoPicture or, where the fields contradict each other, ValueError.
    """
    if isinstance(encoding, str) and not _is_picture(encoding, ''):
        raise _no_picture(encoding)
    known(encoding, _ENCODINGS)
    if encoding in _PLANAR:
        return _rgb_from_planes(data, encoding, height, width, step)
    channels, size, conversion = _ENCODINGS[encoding]
    dtype = ordered(f'u{size}', is_bigendian)
    pixels = pixels_of(data, encoding, height, width, step, channels, dtype)
    check_sides(width, height)
    if channels == 2 and width % 2:
        raise ValueError(f'expected an even width for {encoding}, got {width}')
    if encoding in _MOSAICS:
        return _rgb_from_mosaic(pixels, encoding, bit_depth)
    if size == 2:
        pixels = (bit_depth or full_range()).to_8(pixels)
        return pixels if conversion is None else cv2.cvtColor(pixels, conversion)
    return pixels.copy() if conversion is None else cv2.cvtColor(pixels, conversion)


def _rgb_from_mosaic(pixels: np.ndarray, encoding: str, bit_depth: BitDepth | None) -> np.ndarray:
    height, width = pixels.shape
    if min(height, width) < 3:
        raise ValueError(f'expected at least 3x3 pixels for {encoding}, got {width}x{height}')
    if pixels.dtype.itemsize == 2:
        pixels = (bit_depth or full_range()).to_8(pixels)
    return cv2.cvtColor(pixels, _MOSAICS[encoding][2])


def _rgb_from_planes(data: Any, encoding: str, height: int, width: int, step: int) -> np.ndarray:
    """Some drivers give the length of the whole picture over its height for the step."""
    planes, conversion = _PLANAR[encoding]
    raw = bytes_of(data)
    height, width, step = whole_numbers(height, width, step)
    if step == planes * width and raw.size == step * height:
        step = width
    if encoding != 'nv24' and (height % 2 or width % 2):
        raise ValueError(f'expected an even height and width for {encoding}, got {width}x{height}')
    rows = pixels_of(raw, encoding, int(planes * height), width, step, 1, np.dtype('u1'))
    check_sides(width, height)
    if encoding != 'nv24':
        return cv2.cvtColor(np.ascontiguousarray(rows), conversion)
    # OpenCV has no conversion of 4:4:4 in two planes: as 4:2:2, each pixel twice, it is exact.
    chroma = np.ndarray((height, width, 2), np.uint8, raw, step * height, (2 * step, 2, 1))
    pairs = np.empty((height, width, 4), np.uint8)
    pairs[..., ::2], pairs[..., 1::2] = rows[:height, :, None], chroma
    twice = cv2.cvtColor(pairs.reshape(height, 2 * width, 2), conversion)
    return np.ascontiguousarray(twice[:, ::2])


def rgb_from_compressed(
    data: Any, *, form: str = '', bit_depth: BitDepth | None = None
) -> np.ndarray:
    """(H, W, 3) uint8 RGB from a JPEG or a PNG, as it lies in the file: EXIF turns files alone.

    form is the format of a CompressedImage: what the picture was and, behind a semicolon, how it
    is compressed and as what ('bayer_rggb8; jpeg compressed ', 'rgb8; png compressed bgr8'). What
    was a mosaic and was not made another is one in the file. Grey becomes three equal channels,
    alpha is dropped; bit_depth as in rgb_from_bytes. Raises NoPicture by the form, ValueError on
    a broken picture, on another format, and, before anything is decoded, on one of more than
    MAX_PIXELS pixels.
    """
    encoding, kind = _halves(form)
    check_spelling(encoding, _ENCODINGS)
    if not _is_picture(encoding, kind):
        raise _no_picture(form)
    raw = bytes_of(data)
    _check_compressed(raw)
    made = kind.split()[2:]  # behind 'jpeg compressed'
    if encoding in _MOSAICS and made in ([], [encoding]):
        pixels = _decoded(raw, cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 2:
            return _rgb_from_mosaic(pixels, encoding, bit_depth)
    return _rgb_from_picture(raw, cv2.IMREAD_IGNORE_ORIENTATION, bit_depth)


def rgb_from_file(data: Any, *, bit_depth: BitDepth | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture that was a file: of other formats too, turned as EXIF says.

    For files of the user's own: of others than JPEG and PNG, the size that they claim is not known
    before they are decoded, and OpenCV's own limit holds. What a PGM or PPM names as white is
    white, whatever bit_depth says. Else as rgb_from_compressed.
    """
    raw = bytes_of(data)
    if raw[:8].tobytes().startswith((PNG, JPEG)):
        _check_compressed(raw)
    return _rgb_from_picture(raw, 0, bit_depth)


def _rgb_from_picture(raw: np.ndarray, flags: int, bit_depth: BitDepth | None) -> np.ndarray:
    bgr = _decoded(raw, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | flags)
    white = white_of(raw[:LONGEST_HEADER].tobytes())
    if white is not None:
        bgr = stretched(bgr, white)
    elif bgr.dtype == np.uint16:
        bgr = (bit_depth or full_range()).to_8(bgr)
    if bgr.dtype != np.uint8:
        raise ValueError(f'expected a picture of 8 or 16 bit, got one of {bgr.dtype}')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _check_compressed(raw: np.ndarray) -> None:
    data = raw.tobytes()
    jpeg = header_of(data) if data.startswith(JPEG) else None
    size = (jpeg.width, jpeg.height) if jpeg else png_size(data)
    if size is None:
        raise ValueError(f'expected a whole JPEG or PNG picture, got {raw.size} bytes of neither')
    width, height = size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f'expected a picture of at most {MAX_PIXELS} pixels, got {width}x{height}'
        )
    if jpeg and width * height > _JPEG_PIXELS_PER_BYTE * raw.size:
        raise ValueError(
            f'expected a whole JPEG, got {raw.size} bytes, too few for {width}x{height} pixels'
        )
    check_sides(width, height)
    if jpeg:
        check_scan(data, jpeg)


def _decoded(raw: np.ndarray, flags: int) -> np.ndarray:
    try:
        pixels = cv2.imdecode(raw, flags)
    except cv2.error as error:
        raise ValueError(
            f'expected a whole picture, got {raw.size} bytes that do not decode'
        ) from error
    if pixels is None:
        raise ValueError(f'expected a whole picture, got {raw.size} bytes that do not decode')
    return pixels
