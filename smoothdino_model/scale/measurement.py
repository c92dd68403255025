# SPDX-License-Identifier: Apache-2.0
"""What one frame's anchor says of the scale of its depth."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

_CLEAR_LOOKS = 1.5  # mean log odds: of what is level and no floor, a twentieth has as much


@dataclass(frozen=True)
class Measurement:
    """The scale that depth is to be multiplied by, or in ``why_none`` why nothing is said of it.

    ``log_scale`` is its logarithm, ``spread`` the standard deviation of that, with what is the
    same in every frame: a bent prediction, a height read off a ruler. ``inliers`` of ``samples``
    agree with it. ``known_m`` is what the anchor knows in metres: the camera's height, the median
    of distances; by the depth it is that divided by the scale. Where it is more than ``doubt``
    above what is believed already, something else may have been measured: a table top is a floor
    that seems too near. ``where`` (h, w), laid over the whole picture, says where it was measured.
    """

    log_scale: float = math.nan
    spread: float = math.inf
    inliers: int = 0
    samples: int = 0
    known_m: float = math.nan
    why_none: str = ''
    doubt: float = math.inf
    where: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def scale(self) -> float:
        return math.exp(self.log_scale)


def vouched(measured: Measurement, looks: np.ndarray | None) -> Measurement:
    """The same without doubt where what was measured looks like floor.

    ``looks`` (rows, columns), laid over the whole picture, are the log odds that it is floor; None
    tells nothing.
    """
    if looks is None or measured.where is None or measured.doubt == math.inf:
        return measured
    rows, columns = (
        np.arange(grid) * patches // grid
        for grid, patches in zip(measured.where.shape, looks.shape, strict=True)
    )
    if looks[rows][:, columns][measured.where].mean() <= _CLEAR_LOOKS:
        return measured
    return replace(measured, doubt=math.inf)
