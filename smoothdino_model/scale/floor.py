# SPDX-License-Identifier: Apache-2.0
"""The scale of depth from the floor: a camera that knows its height sees how far its floor is.

Height, tilt and focal length give the depth that each pixel has *if* it is floor, in closed form.
Which pixels are is told by what needs no scale: up a column of the picture a level surface recedes
as the floor does, whatever its height, and of the level surfaces the floor is the one with nothing
beneath. (A plane fitted to predicted depth is tilted and bent as that is, and may be a table.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.measurement import Measurement

_ROWS, _COLUMNS = 48, 64  # of the grid of pixels that are looked at
_LEAST_SINE = math.sin(math.radians(4.0))  # of the angle below the horizon: a degree is 25 % of it
_REACH = 3  # rows of the grid up and down, over which a slope is told
_OFF_LEVEL, _NOISE = 0.5, 0.02  # of the floor's own change over these rows, and in any case
# Of the logarithm of the scale: what is looked for, in bins, smoothed, and how near an inlier is.
_MOST, _BIN, _SMOOTH, _NEAR = 2.0, 0.02, 0.05, 0.15
_LEAST_INLIERS = 0.03  # of the grid
# In logarithm of the scale below a surface, and of its inliers: behind a table that fills the
# picture a strip of floor is left to be seen, which a network has too near the table.
_BENEATH, _MOST_BENEATH = 0.24, 0.05
_LEAST_SPREAD = 0.06  # a part of a picture that is bent, and a height read off a ruler
_OF_SCATTER = 0.5  # is spread: that of single pixels, half of it bend that the median leaves out
_FEW = 0.002  # what is added to the spread by one inlier in ...: 0.02 at a tenth of the picture
_FURNITURE_M = 0.15  # over the floor: what is level there may be a step, a seat, a bed, a table

_EDGES = np.arange(round(2 * _MOST / _BIN) + 1) * _BIN - _MOST
_WIDE = round(_NEAR / _BIN)
_KERNEL = np.exp(-0.5 * (np.arange(-_WIDE, _WIDE + 1) * _BIN / _SMOOTH) ** 2)


@dataclass(frozen=True)
class Floor:
    """The floor as a camera sees it: how high the camera is over it, and which way is down.

    ``down`` is a unit vector in the camera's axes: x right, y down, z forward. Raises ValueError
    where the numbers are none of a camera over a floor.
    """

    height_m: float
    down: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 0.02 <= self.height_m <= 100:
            raise ValueError(
                f'expected a camera 0.02 to 100 m over the floor, got {self.height_m!r}: measure '
                'from the floor to the middle of the lens, in metres'
            )
        if not abs(math.hypot(*self.down) - 1) < 1e-3:
            raise ValueError(f'expected a direction of length 1, got {self.down!r}')

    def in_words(self) -> str:
        """How the camera is above it, as in the arguments of floor_of_tilt."""
        right, down, ahead = self.down
        pitch = math.degrees(math.asin(min(max(ahead, -1.0), 1.0)))
        roll = math.degrees(math.atan2(right, down))
        return f'{self.height_m:.2f} m over it, pitch {pitch:.1f}, roll {roll:.1f} degrees'


def floor_of_tilt(height_m: float, pitch_deg: float, roll_deg: float = 0.0) -> Floor:
    """The floor under a camera by its angles in degrees, as REP 103 and URDF have them.

    Pitch is positive where the camera looks down, roll where it leans to its right.
    """
    for name, angle in (('pitch', pitch_deg), ('roll', roll_deg)):
        if not -90 <= angle <= 90:
            raise ValueError(
                f'expected a {name} of the camera of -90 to 90 degrees, got {angle!r}'
            )
    pitch, roll = math.radians(pitch_deg), math.radians(roll_deg)
    level = math.cos(pitch)
    return Floor(height_m, (level * math.sin(roll), level * math.cos(roll), math.sin(pitch)))


def floor_of_pose(
    floor_from_camera: np.ndarray,
    *,
    up: Sequence[float] = (0.0, 0.0, 1.0),
    floor_m: float = 0.0,
) -> Floor:
    """The floor by the pose (4, 4) of a camera in a frame that lies on the floor with z up.

    Of any other frame, ``up`` is the unit vector that points up in it, and the floor lies
    ``floor_m`` metres along that.
    """
    *away, at_m = (float(value) for value in np.asarray(up) @ floor_from_camera[:3])
    right, down, forward = (-value for value in away)
    return Floor(at_m - floor_m, (right, down, forward))


def floor_scale(depth_m: np.ndarray, camera: Intrinsics, floor: Floor) -> Measurement:
    """Compare depth (H, W) in metres with the floor's own.

    Depth that is not finite or not above 0 is unknown. Raises ValueError where the camera is of
    another size.
    """
    if depth_m.shape != (camera.height, camera.width):
        raise ValueError(
            f'expected depth of {camera.height, camera.width}, the size of its camera, got '
            f'{depth_m.shape}'
        )
    rows, columns, log_floor, floor_change = _seen(camera, floor)
    samples = log_floor.size
    if not np.isfinite(log_floor).any():
        return Measurement(samples=samples, why_none='no pixel lies below the horizon')
    with np.errstate(invalid='ignore', divide='ignore'):
        log_scale = log_floor - np.log(depth_m[rows][:, columns])
        level = np.abs(_change(log_scale)) < _OFF_LEVEL * floor_change + _NOISE
    known = np.isfinite(log_scale)
    candidates = log_scale[level & known]
    best = _lowest_surface(candidates, log_scale[known], samples)
    if isinstance(best, str):
        return Measurement(samples=samples, why_none=best)
    where = level & known & (np.abs(log_scale - best) <= _NEAR)
    inliers = log_scale[where]
    middle = float(np.median(inliers))
    spread = math.hypot(
        _OF_SCATTER * 1.4826 * float(np.median(np.abs(inliers - middle))),
        _LEAST_SPREAD,
        _FEW * samples / inliers.size,
    )
    height_m = floor.height_m
    left_m = height_m - _FURNITURE_M
    doubt = math.log(height_m / left_m) if left_m > 0 else math.inf
    return Measurement(middle, spread, inliers.size, samples, height_m, doubt=doubt, where=where)


def _lowest_surface(candidates: np.ndarray, every: np.ndarray, samples: int) -> float | str:
    """The mode of the level pixels' scales that has nothing beneath, or why there is none.

    What lies lower than a surface asks for a smaller scale to be floor.
    """
    counts = np.histogram(candidates, _EDGES)[0].astype(float)
    smooth = np.convolve(counts, _KERNEL, 'same')
    inside = np.convolve(counts, np.ones(2 * _WIDE + 1), 'same')
    below = np.concatenate(([0], np.histogram(every, _EDGES)[0].cumsum()))
    beneath = below[np.maximum(np.arange(len(counts)) - round(_BENEATH / _BIN), 0)]
    at = np.flatnonzero((smooth[1:-1] >= smooth[:-2]) & (smooth[1:-1] > smooth[2:])) + 1
    at = at[inside[at] >= _LEAST_INLIERS * samples]
    if not at.size:
        return 'too little of the picture is level'
    at = at[beneath[at] <= _MOST_BENEATH * inside[at]]
    if not at.size:
        return 'beneath what is level lies more'
    return float(_EDGES[at[smooth[at].argmax()]] + _BIN / 2)


@lru_cache(maxsize=16)
def _seen(camera: Intrinsics, floor: Floor) -> tuple[np.ndarray, ...]:
    """Rows and columns that are looked at, the logarithm of the floor's depth and its change.

    NaN where there is no floor, or where it is too far for a tilt that is known to a degree.
    """
    rows = np.linspace(0, camera.height - 1, min(_ROWS, camera.height)).round().astype(np.intp)
    columns = np.linspace(0, camera.width - 1, min(_COLUMNS, camera.width)).round().astype(np.intp)
    x = (columns - camera.cx_px) / camera.fx_px
    y = ((rows - camera.cy_px) / camera.fy_px)[:, None]
    fall = floor.down[0] * x + floor.down[1] * y + floor.down[2]
    log_floor = np.full(fall.shape, np.nan)
    seen = fall > _LEAST_SINE * np.sqrt(1 + x * x + y * y)
    log_floor[seen] = np.log(floor.height_m / fall[seen])
    return rows, columns, log_floor, np.abs(_change(log_floor))


def _change(values: np.ndarray) -> np.ndarray:
    """Over some rows up and down; at top and bottom that of the nearest row that has both."""
    if len(values) <= 2 * _REACH:  # nothing can be told of a strip
        return np.full_like(values, np.nan)
    row = np.arange(len(values)).clip(_REACH, len(values) - 1 - _REACH)
    return values[row + _REACH] - values[row - _REACH]
