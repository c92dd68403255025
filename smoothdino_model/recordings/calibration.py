# SPDX-License-Identifier: Apache-2.0
"""What a camera_info says of one image, in one place for everything that reads or publishes one.

CameraInfo messages are rclpy's or rosbags', by their fields (sensor_msgs/CameraInfo, REP 104).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoothdino_model.recordings.frames import SQUARE, Intrinsics, is_of_one_shape

NO_INFO = 'no camera_info has come'
# Of the focal length over the side of the picture: what lies outside, from a field of view of 157
# degrees to one of 1, is no pinhole's but a mistake.
_FOCALS = (0.1, 50.0)
# Lenses that bend the picture without any coefficient.
_FISHEYES = (
    'equidistant',
    'fisheye',
    'kannala_brandt',
    'omnidirectional',
    'ds',
    'double_sphere',
    'eucm',
    'fov',
    'mei',
    'ocam',
    'scaramuzza',
    'equirectangular',
)


@dataclass(frozen=True)
class Calibration:
    """A camera_info as it is for one image.

    ``info`` is what to publish with the image's depth, None where there is none that fits;
    ``intrinsics`` the pinhole in it, None where ``fault`` says why. ``distorted`` is whether the
    image is not as a pinhole would see it.
    """

    info: Any = None
    intrinsics: Intrinsics | None = None
    fault: str = NO_INFO
    distorted: bool = False

    @property
    def focal(self) -> float | None:
        """The focal length over the image's width."""
        return self.intrinsics.focal if self.intrinsics else None

    @property
    def doubt(self) -> str:
        """In words, that its pixels are not square, '' where they are.

        It is no fault: the sensors of some cameras have such pixels, and analog video has.
        """
        lens = self.intrinsics
        if lens is None or abs(lens.fx_px / lens.fy_px - 1) <= SQUARE:
            return ''
        return (
            f'expected square pixels (fx and fy within {SQUARE:.0%}), got fx {lens.fx_px:g} and '
            f'fy {lens.fy_px:g} px for a {lens.width}x{lens.height} image: depth is scaled by fx, '
            'and off if the calibration is wrong or the driver squeezes the picture'
        )


def calibrated(
    infos: Sequence[Any], header: Any, *, height: int, width: int, rectified: bool
) -> Calibration:
    """Calibrate an image of (height, width) with this header.

    Of ``infos``, the latest first, the one of the image's own stamp counts, else the latest: by
    the time an image is in work the info of a later one may have come, of a lens that zooms. P is
    that of a ``rectified`` image, K that of any other.
    """
    if not infos:
        return Calibration()
    own = next((info for info in infos if info.header.stamp == header.stamp), infos[0])
    distorted = not rectified and is_distorted(own)
    try:
        info = depth_camera_info(own, header, height=height, width=width)
    except ValueError as error:
        return Calibration(None, None, str(error), distorted)
    try:
        pinhole = intrinsics_of(info, height=height, width=width, rectified=rectified)
    except ValueError as error:
        return Calibration(info, None, str(error), distorted)
    return Calibration(info, pinhole, '', distorted)


def depth_camera_info(info: Any, header: Any, *, height: int, width: int) -> Any:
    """Give a copy of the camera's info for its depth image of this size, with the image's header.

    An image of the size of its region of interest, binned as it says, has the info as it is, and
    so has one whose info has no size. Of any other size, K and P are taken to the image's pixels,
    and region and binning, then of no meaning, are cleared:

    - scaled, the principal point included, where that keeps pixels square within 2 %;
    - otherwise, where one of image and info is the middle of the other at the same scale or a
      whole number of times smaller, as a crop;
    - otherwise it raises ValueError, with both sizes: the info is of another mode of the camera,
      or of one of two that are side by side in the image.
    """
    own = copy.deepcopy(info)
    own.header = header
    if not (info.height and info.width):
        return own
    region = np.array((info.roi.width or info.width, info.roi.height or info.height), float)
    offset = np.array((info.roi.x_offset, info.roi.y_offset), float)
    size = np.array((width, height), float)
    if info.roi.width and info.roi.height and np.any(offset + region > (info.width, info.height)):
        raise ValueError(
            f'expected a region of interest within {info.width}x{info.height}, got '
            f'{region[0]:.0f}x{region[1]:.0f} at {offset[0]:.0f}, {offset[1]:.0f}: it counts in '
            'pixels of that size, before binning'
        )
    if tuple(region // np.maximum((info.binning_x, info.binning_y), 1)) == (width, height):
        return own
    scale = size / region
    if not is_of_one_shape((height, width), (region[1], region[0])):
        scale = np.full(2, _scale_of_crop(region, size))
    # From the middle of the region to the middle of the image.
    moved = size / 2 - (offset + region / 2) * scale
    with np.errstate(over='ignore', invalid='ignore'):  # a huge K, which intrinsics_of refuses
        own.k = _taken(info.k, scale, moved)
        own.p = _taken(info.p, scale, moved)
    own.height, own.width = height, width
    own.binning_x = own.binning_y = 0
    own.roi.x_offset = own.roi.y_offset = own.roi.height = own.roi.width = 0
    own.roi.do_rectify = False
    return own


def _scale_of_crop(region: np.ndarray, size: np.ndarray) -> float:
    """Give the one scale, 1 over a whole number, at which one side is the same in both."""
    whole = {
        part / full for part, full in zip(size, region, strict=True) if (full / part).is_integer()
    }
    # Twice as wide, or as high, is what a stereo camera's two pictures in one are.
    if len(whole) != 1 or sorted(size / region) == [1, 2]:
        raise ValueError(
            f'expected a camera_info of the shape of the {size[0]:.0f}x{size[1]:.0f} image, got '
            f'one for {region[0]:.0f}x{region[1]:.0f}: no scaling and no crop of the middle makes '
            'one of the other; let the camera publish the camera_info of the mode that it is in'
        )
    return whole.pop()


def _taken(matrix: Any, scale: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Give K (9) or P (12) for pixels at ``scale`` times the old ones, plus ``moved``."""
    rows = np.array(matrix, float).reshape(3, -1)
    if not rows.any():
        return rows.ravel()
    rows[:2] *= scale[:, None]
    rows[:2, 2] += moved
    return rows.ravel()


def intrinsics_of(info: Any, *, height: int, width: int, rectified: bool) -> Intrinsics:
    """The pinhole of a (height, width) picture, in its pixels, of its depth_camera_info.

    P is that of a rectified picture, K that of any other (and of a rectified one without P).
    Raises ValueError, in words, where the numbers are no camera's.
    """
    name, matrix = ('P', info.p) if rectified and info.p[0] else ('K', info.k)
    values = np.asarray(matrix, float).reshape(3, -1)
    if not values[0, 0]:
        raise ValueError('its K is zero, so the camera is not calibrated')
    focal_px, center_px = values[[0, 1], [0, 1]], values[:2, 2]
    if info.width and info.height:  # else it is taken as one of this size
        binning = np.maximum((info.binning_x, info.binning_y), 1)
        focal_px = focal_px / binning
        center_px = (center_px - (info.roi.x_offset, info.roi.y_offset)) / binning
    size = np.array((width, height), float)
    least, most = _FOCALS
    if not np.all((focal_px >= least * size) & (focal_px <= most * size)):
        raise ValueError(
            f'expected a focal length of {least:g} to {most:g} times the side of a '
            f'{width}x{height} image in {name}, got {focal_px[0]:g} and {focal_px[1]:g} px'
        )
    if not np.all(np.abs(center_px - size / 2) <= 2 * size):
        raise ValueError(
            f'expected a principal point near a {width}x{height} image in {name}, got '
            f'{center_px[0]:g}, {center_px[1]:g}'
        )
    (fx_px, fy_px), (cx_px, cy_px) = focal_px.tolist(), center_px.tolist()
    return Intrinsics(fx_px, fy_px, cx_px, cy_px, width, height)


def is_distorted(info: Any) -> bool:
    """Tell whether a lens bends the picture: by its coefficients, or by being a fisheye."""
    if str(info.distortion_model).lower().startswith(_FISHEYES):
        return True
    return bool(np.any(np.nan_to_num(np.asarray(info.d, float))))


def is_rectified(topic: str) -> bool:
    """Whether an image topic is of rectified images, by the words that image_proc and drivers use.

    As a word of its own: not in `direct` or `corrected`.
    """
    return not {'rect', 'rectified'}.isdisjoint(re.split('[/_]', topic))
