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


def to_rvl(stored: np.ndarray) -> np.ndarray:
    """(N,) uint8 from uint16 of any shape, row by row, in whole words."""
    pixels = stored.ravel()
    places = np.flatnonzero(pixels)
    first = np.flatnonzero(np.diff(places, prepend=-2) > 1)  # of each run, among the kept ones
    begins = places[first]
    counts = np.diff(first, append=places.size)
    ends = begins + counts
    zeros = begins - np.concatenate(([0], ends[:-1]))[: begins.size]

    coded = pixels[places].astype(np.int32)
    differences = coded.copy()
    differences[1:] -= coded[:-1]
    values = np.empty(places.size + 2 * first.size, np.int32)
    at = first + 2 * np.arange(first.size)  # where the lengths of each run go
    values[at], values[at + 1] = zeros, counts
    is_pixel = np.ones(values.size, bool)
    is_pixel[at] = is_pixel[at + 1] = False
    values[is_pixel] = (differences << 1) ^ (differences >> 31)
    left = pixels.size - (ends[-1] if ends.size else 0)
    if left:
        values = np.concatenate((values, np.array((left, 0), np.int32)))
    return _packed(values)


def _packed(values: np.ndarray) -> np.ndarray:
    """Write numbers in groups of 3 bits, and eight groups in a word, the first one highest."""
    limits = 8 ** np.arange(1, 10)
    groups = 1 + np.searchsorted(limits, values, side='right')
    first = np.cumsum(groups) - groups
    total = int(groups.sum())
    nibbles = np.zeros(-(-total // 8) * 8, np.uint8)
    for k in range(int(groups.max(initial=0))):
        some = slice(None) if k == 0 else groups > k
        more = (groups[some] > k + 1).astype(np.uint8) << 3
        nibbles[first[some] + k] = (values[some] >> 3 * k & 7).astype(np.uint8) | more
    words = (nibbles[::2] << 4 | nibbles[1::2]).reshape(-1, 4)
    return np.ascontiguousarray(words[:, ::-1]).ravel()


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
