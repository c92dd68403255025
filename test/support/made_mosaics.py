# SPDX-License-Identifier: Apache-2.0
"""Mosaics of a colour filter, as cameras send them."""

import numpy as np

BAYER = ('rggb', 'bggr', 'gbrg', 'grbg')
MOSAIC_COLOUR = (200, 120, 30)


def mosaic_of(pattern: str, rows: int, columns: int) -> np.ndarray:
    """One colour everywhere, through the filter: (2 rows, 2 columns) uint8."""
    values = [MOSAIC_COLOUR['rgb'.index(letter)] for letter in pattern]
    return np.tile(np.array(values, np.uint8).reshape(2, 2), (rows, columns))
