# SPDX-License-Identifier: Apache-2.0
"""The camera that a model was trained with: what makes its depth metric for another one.

Two cameras that see the same picture see it at depths in the ratio of their focal lengths, so
what a model says of a picture is right for the camera of its training alone (Yin et al. 2023,
Metric3D).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TrainedCamera:
    """Focal length in pixels of a (height, width) picture. Raises ValueError if not above 0."""

    focal_px: float
    width: int
    height: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise ValueError(f'trained_camera: expected {name} above 0, got {value!r}')

    def scale(self, focal: float, *, height: int, width: int) -> float:
        """Give the factor from depth as the model says it to depth of another camera.

        ``focal`` is that camera's focal length over the width of its (height, width) picture.
        Focal lengths are compared over the root of the picture's area: pictures of one shape
        compare as they do over the width, and what a wide picture lacks at top and bottom counts
        as much as what it has more at the sides.
        """
        times_the_pixels = (width * height) / (self.width * self.height)
        return focal * width / self.focal_px / math.sqrt(times_the_pixels)


NYU = TrainedCamera(518.86, 640, 480)
# By a part of a published model's name: the camera of the data set that made it metric.
_PUBLISHED = {
    '-kitti': TrainedCamera(721.54, 1242, 375),
    'metric-outdoor': TrainedCamera(725.01, 1242, 375),  # Virtual KITTI 2
    'metric-indoor': TrainedCamera(886.81, 1024, 768),  # Hypersim
}


def trained_camera(name: str, stored: Any = None) -> TrainedCamera:
    """The camera stored with a model, else the one that its name stands for, else NYUv2's.

    Raises ValueError on something stored that is no camera.
    """
    if stored is None:
        last = name.rstrip('/').rpartition('/')[2].lower()
        return next((camera for part, camera in _PUBLISHED.items() if part in last), NYU)
    try:
        return TrainedCamera(**stored)
    except TypeError as error:
        raise ValueError(
            f'trained_camera: expected focal_px, width and height, got {stored!r:.80}'
        ) from error
