# SPDX-License-Identifier: Apache-2.0
"""What is white in a PGM or PPM: each names its own largest value, which OpenCV does not heed."""

from __future__ import annotations

import re

import numpy as np

_SPACE = rb'(?:\s|#[^\n]*\n)+'
_HEADER = re.compile(rb'P([2356])' + 3 * (_SPACE + rb'(\d{1,5})\b'))
LONGEST_HEADER = 4096  # of those that are looked at, comments included


def white_of(head: bytes) -> int | None:
    """The value that is white in the pixels that OpenCV decodes from a file of this beginning.

    None where it is that of their type, in other formats too, and where 16 bit are said to be
    full, as most programs say whatever the camera fills. Of 8 bit that are written as text OpenCV
    has made 255 itself.
    """
    header = _HEADER.match(head)
    white = int(header[4]) if header else 0
    is_text = header is not None and header[1] in b'23'
    if white in (0, 255) or white >= 65535 or (is_text and white < 255):
        return None
    return white


def grey_levels_of(head: bytes) -> int:
    """The largest value of a PGM of this beginning, 0 for all that is none."""
    header = _HEADER.match(head)
    return int(header[4]) if header and header[1] in b'25' else 0


def stretched(pixels: np.ndarray, white: int) -> np.ndarray:
    """Give uint8 pixels, 255 for white and beyond, of the file's uint8 or uint16 ones."""
    levels = np.rint(np.arange(white + 1) * (255 / white)).astype(np.uint8)
    return levels[np.minimum(pixels, white)]
