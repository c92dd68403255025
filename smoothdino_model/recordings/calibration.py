# SPDX-License-Identifier: Apache-2.0
"""CameraInfo messages, rclpy's or rosbags', by their fields."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from smoothdino_model.recordings.frames import Intrinsics

# Of the focal length over the side of the picture: what lies outside, from a field of view of 157
# degrees to one of 1, is no pinhole's but a mistake.
_FOCALS = (0.1, 50.0)


def depth_camera_info(info: Any, header: Any, *, height: int, width: int) -> Any:
    """A copy of the camera's info for its depth image of this size, with the image's header.

    Where the info is for another size, K and P are scaled (as image_proc's resize does, the
    principal point included) and its region and binning, then of no meaning, are cleared. An info
    without a size is passed on as it is.
    """
    own = copy.deepcopy(info)
    own.header = header
    binned_height = (info.roi.height or info.height) // max(info.binning_y, 1)
    binned_width = (info.roi.width or info.width) // max(info.binning_x, 1)
    if (binned_height, binned_width) == (height, width) or not (info.height and info.width):
        return own
    x, y = width / info.width, height / info.height
    with np.errstate(over='ignore'):  # a huge K, which intrinsics_of refuses
        own.k = info.k * np.repeat([x, y, 1.0], 3)
        own.p = info.p * np.repeat([x, y, 1.0], 4)
    own.height, own.width = height, width
    own.binning_x = own.binning_y = 0
    own.roi.x_offset = own.roi.y_offset = own.roi.height = own.roi.width = 0
    own.roi.do_rectify = False
    return own


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
    return bool(np.any(np.nan_to_num(np.asarray(info.d, float))))


def is_rectified(topic: str) -> bool:
    """Whether an image topic is of rectified images, by the names that image_proc gives."""
    return 'rect' in topic.removesuffix('/compressed').rpartition('/')[2]
