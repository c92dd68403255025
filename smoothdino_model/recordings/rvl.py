# SPDX-License-Identifier: Apache-2.0
"""RVL, in which compressed_depth_image_transport may send depth (A. D. Wilson, ISS 2017).

The picture is runs of zeros and of other values, in turns. The length of each run, and for each
other value its difference to the one before, are written in groups of 3 bits, the lowest first,
each in 4 bits of which the highest says that more follow; eight of these make a word of 32 bits.
"""

from __future__ import annotations

import numpy as np


def from_rvl(data: np.ndarray, pixels: int) -> np.ndarray:
    """(pixels,) uint16 from (N,) uint8. Raises ValueError where the runs are not so long."""
    words = np.frombuffer(data[: data.size // 4 * 4].tobytes(), '>u1').reshape(-1, 4)[:, ::-1]
    nibbles = np.stack((words >> 4, words & 15), 2).ravel().astype(np.int64)
    values = _values(nibbles)
    stored = np.zeros(pixels, np.uint16)
    places: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    at = pixel = 0
    while pixel < pixels:
        if at + 2 > values.size:
            raise _wrong(f'{pixel} of {pixels} pixels')
        pixel += int(values[at])  # of zeros
        count = int(values[at + 1])
        at += 2
        if pixel + count > pixels or at + count > values.size:
            raise _wrong(f'a run of {count} behind {pixel} of {pixels} pixels')
        kept.append(values[at : at + count])
        places.append(np.arange(pixel, pixel + count))
        at, pixel = at + count, pixel + count
    coded = np.concatenate(kept)
    differences = (coded >> 1) ^ -(coded & 1)
    stored[np.concatenate(places)] = np.cumsum(differences).astype(np.uint16)
    return stored


def _values(nibbles: np.ndarray) -> np.ndarray:
    """Give the numbers that groups of 3 bits make, without one that the data breaks off in."""
    last = np.flatnonzero(nibbles < 8)
    if not last.size:
        return nibbles[:0]
    first = np.concatenate(([0], last[:-1] + 1))
    within = np.arange(last[-1] + 1) - np.repeat(first, last - first + 1)
    if within.max() > 10:  # more than 32 bits
        raise _wrong('a number without an end')
    return np.add.reduceat((nibbles[: last[-1] + 1] & 7) << 3 * within, first)


def _wrong(got: str) -> ValueError:
    return ValueError(f'expected depth in whole RVL, got {got}')
