# SPDX-License-Identifier: Apache-2.0
"""How many of 16 bits a camera fills: one of 10, 12 or 14 sends its own in the low ones."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

BIT_DEPTHS = (8, 10, 12, 14, 16)  # of cameras

_log = logging.getLogger(__name__)


class BitDepth:
    """What is white in the 16-bit pictures of one camera or recording: its own full range.

    Told (8 to 16 bits), or found from what comes (0): the fewest of BIT_DEPTHS that hold the
    brightest value so far. What is found is held until a brighter value shows that it was too
    little. Both are said, one line each. Raises ValueError on other numbers of bits.
    """

    def __init__(self, bits: int = 0, say: Callable[[str], None] = _log.info) -> None:
        if bits != 0 and not 8 <= bits <= 16:
            raise ValueError(
                f'expected a bit depth of 8 to 16, or 0 to find it from the pictures, got {bits}'
            )
        self.bits = bits  # 0 until it is found
        self._is_told = bits != 0
        self._say = say

    def to_8(self, pixels: np.ndarray) -> np.ndarray:
        """Give uint8 pixels, 255 the most that the camera can send, of 16-bit ones of any shape.

        The lowest bits are cut off. What is above the range that was told is white.
        """
        if not self._is_told:
            self._find(int(pixels.max()))
        return np.minimum(pixels >> (self.bits - 8), 255).astype(np.uint8)

    def _find(self, brightest: int) -> None:
        bits = next(bits for bits in BIT_DEPTHS if brightest < 1 << bits)
        if bits > self.bits:
            before = f' and no longer for {self.bits}' if self.bits else ''
            self.bits = bits
            self._say(
                f'16-bit pictures with values up to {brightest} are taken for {bits} bits'
                f'{before}: {(1 << bits) - 1} is white'
            )


def full_range() -> BitDepth:
    """Of pictures that are known to fill all of their 16 bits."""
    return BitDepth(16)
