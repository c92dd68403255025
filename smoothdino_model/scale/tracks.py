# SPDX-License-Identifier: Apache-2.0
"""Where corners of a picture that was kept are seen now."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_WIDTH = 320  # of the grey picture that is looked at
# Weak ones count: what has no strong corner, a wall, is most of a picture.
_CORNERS, _QUALITY, _APART_PX = 120, 0.003, 14
_WINDOW, _LEVELS, _STOP = (11, 11), 3, (3, 12, 0.03)
_LEAST_TEXTURE = 1e-3  # of calcOpticalFlowPyrLK: beneath, noise is followed
_MOST_DIFFERENCE = 15.0  # grey values a pixel: beyond, it is something else that is seen there
_LEAST_LEFT = 0.5  # of the corners, below which another picture is kept
_OLDEST_NS = 3_000_000_000  # what is kept; odometry drifts


@dataclass(frozen=True, eq=False)
class Tracks:
    """Corners of the picture of ``key_ns``: where they were and are, (N, 2) x and y in pixels.

    ``step`` of these are one of the picture that was looked at.
    """

    key_ns: int
    was_px: np.ndarray
    are_px: np.ndarray
    step: int = 1


@dataclass(frozen=True, eq=False)
class _Key:
    """The picture that is kept, grey, and its corners that are still seen: (N, 1, 2) in it."""

    grey: np.ndarray
    stamp_ns: int
    begun: int
    was_px: np.ndarray
    are_px: np.ndarray


class Tracker:
    """Follows the corners of one camera's pictures, each from the one picture that is kept.

    Each is looked for where it was last seen, by its looks in the picture that is kept: nothing
    adds up on the way.
    """

    def __init__(self) -> None:
        self._key: _Key | None = None

    def follow(self, rgb: np.ndarray, stamp_ns: int) -> Tracks | None:
        """Take the next picture (H, W, 3); None for the first one, and after a gap."""
        grey, step = _small(rgb)
        key = self._key
        if key and (key.grey.shape != grey.shape or not 0 < stamp_ns - key.stamp_ns <= _OLDEST_NS):
            key = None
        if key is None:
            self._key = _kept(grey, stamp_ns)
            return None
        seen = _followed(key, grey)
        left = len(seen.was_px)
        self._key = seen if left >= _LEAST_LEFT * key.begun else _kept(grey, stamp_ns)
        was_px, are_px = _in_picture(seen.was_px, step), _in_picture(seen.are_px, step)
        return Tracks(key.stamp_ns, was_px, are_px, step)


def _small(rgb: np.ndarray) -> tuple[np.ndarray, int]:
    """The grey picture, of every so many-th pixel's surroundings, and how many these are."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    step = max(1, round(min(grey.shape[1] / _WIDTH, grey.shape[0] / 2)))
    height, width = grey.shape[0] // step, grey.shape[1] // step
    whole = grey[: height * step, : width * step]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), step


def _kept(grey: np.ndarray, stamp_ns: int) -> _Key:
    corners = cv2.goodFeaturesToTrack(grey, _CORNERS, _QUALITY, _APART_PX)
    if corners is None:
        corners = np.empty((0, 1, 2), np.float32)
    return _Key(grey, stamp_ns, len(corners), corners, corners)


def _followed(key: _Key, grey: np.ndarray) -> _Key:
    if not len(key.was_px):
        return key
    are_px, found, difference = cv2.calcOpticalFlowPyrLK(
        key.grey,
        grey,
        key.was_px,
        key.are_px.copy(),
        winSize=_WINDOW,
        maxLevel=_LEVELS,
        criteria=_STOP,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        minEigThreshold=_LEAST_TEXTURE,
    )
    height, width = grey.shape
    x, y = are_px[:, 0].T
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    good = (found[:, 0] == 1) & (difference[:, 0] < _MOST_DIFFERENCE) & inside
    return _Key(key.grey, key.stamp_ns, key.begun, key.was_px[good], are_px[good])


def _in_picture(points_px: np.ndarray, step: int) -> np.ndarray:
    """(N, 2) in the whole picture; the middle of a pixel is a whole number in both."""
    return (points_px[:, 0].astype(np.float64) + 0.5) * step - 0.5
