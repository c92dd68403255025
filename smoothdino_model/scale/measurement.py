# SPDX-License-Identifier: Apache-2.0
"""What one frame's anchor says of the scale of its depth."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """The scale that depth is to be multiplied by, or in ``why_none`` why nothing is said of it.

    ``log_scale`` is its logarithm, ``spread`` the standard deviation of that, with what is the
    same in every frame: a bent prediction, a height read off a ruler. ``inliers`` of ``samples``
    agree with it. ``known_m`` is what the anchor knows in metres: the camera's height, the median
    of distances; by the depth it is that divided by the scale. Where it is more than ``doubt``
    above what is believed already, something else may have been measured: a table top is a floor
    that seems too near.
    """

    log_scale: float = math.nan
    spread: float = math.inf
    inliers: int = 0
    samples: int = 0
    known_m: float = math.nan
    why_none: str = ''
    doubt: float = math.inf

    @property
    def scale(self) -> float:
        return math.exp(self.log_scale)
