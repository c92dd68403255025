# SPDX-License-Identifier: Apache-2.0
"""The fields of an image message held against the bytes that came with them.

The functions take the fields, not a message, so that rclpy's messages, rosbags' messages and
files share them. Every field is checked against the length of the data before a pixel is
touched, so what is allocated is bounded by what was received.
"""

from __future__ import annotations

import operator
from collections.abc import Container
from typing import Any

import numpy as np

MAX_PIXELS = 7680 * 4320  # of a compressed picture, which can claim any size in a few bytes
# A picture of one row, brought to the height of a network, would be wider than any memory.
MAX_SIDES = 8  # the longer one to the shorter
PNG = b'\x89PNG\r\n\x1a\n'


def image_fields(message: Any) -> dict[str, Any]:
    """What rgb_from_bytes and depth_m_from_bytes take, of an Image of rclpy's or of rosbags'."""
    names = ('data', 'encoding', 'height', 'width', 'step', 'is_bigendian')
    return {name: getattr(message, name) for name in names}


class UnsupportedEncoding(ValueError):  # noqa: N818 -- it reads well where it is caught
    """An encoding that is not decoded here; the message names those that are."""


def known(encoding: Any, known: dict[str, tuple]) -> tuple:
    if not isinstance(encoding, str) or encoding not in known:
        check_spelling(encoding, known)
        raise UnsupportedEncoding(
            f'expected one of the encodings {", ".join(known)}, got {encoding!r:.80}'
        )
    return known[encoding]


def check_spelling(encoding: Any, known: Container[str]) -> None:
    """Raise ValueError on a known encoding in another case or with blanks: never guessed at."""
    if not isinstance(encoding, str) or encoding in known:
        return
    bare = encoding.strip().strip('\0')
    for meant in (bare, bare.lower(), bare.upper()):
        if meant in known:
            raise ValueError(
                f'expected the encoding {meant!r}, got {encoding!r:.80}: case and blanks count, '
                f'so let the driver send {meant!r}'
            )


def ordered(number: str, is_bigendian: Any) -> np.dtype:
    return np.dtype(('>' if is_bigendian else '<') + number)


def bytes_of(data: Any) -> np.ndarray:
    """(N,) uint8, a view of data."""
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise ValueError(f'expected contiguous bytes, got {type(data).__name__}') from error


def whole_numbers(height: Any, width: Any, step: Any) -> tuple[int, int, int]:
    try:
        return operator.index(height), operator.index(width), operator.index(step)
    except TypeError as error:
        raise ValueError(
            f'expected integers, got height {height!r:.40}, width {width!r:.40}, step {step!r:.40}'
        ) from error


def pixels_of(
    data: Any, encoding: str, height: int, width: int, step: int, channels: int, dtype: np.dtype
) -> np.ndarray:
    """(H, W) or (H, W, channels), a view of data without the padding of its rows."""
    height, width, step = whole_numbers(height, width, step)
    if height < 1 or width < 1:
        raise ValueError(f'expected a picture of at least 1x1 pixels, got {width}x{height}')
    row = width * channels * dtype.itemsize
    if step < row:
        raise ValueError(
            f'expected a step of at least {row} bytes for {width} pixels of {encoding}, got {step}'
        )
    raw = bytes_of(data)
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


def check_sides(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDES * min(width, height):
        raise ValueError(
            f'expected sides of at most {MAX_SIDES} to 1, got {width}x{height} pixels'
        )


def png_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the header of a PNG, None where there is none."""
    if not data.startswith(PNG) or len(data) < 24:
        return None
    return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
