# SPDX-License-Identifier: Apache-2.0
"""Depth and its picture as a PointCloud2."""

from __future__ import annotations

import cv2
import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from smoothdino_model.recordings.frames import Intrinsics

# 16 bytes a point, little endian everywhere: x, y, z, and rgb as PCL and RViz pack it, the bytes
# of 0x00RRGGBB taken for a float.
_STEP = 16
_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(('x', 'y', 'z', 'rgb'))
]


def point_cloud_message(
    depth_m: np.ndarray,
    rgb: np.ndarray,
    intrinsics: Intrinsics,
    header: Header,
    *,
    min_depth_m: float,
    max_depth_m: float,
    stride: int = 1,
) -> PointCloud2:
    """An organised cloud of (H, W) float32 metres and their (H, W, 3) uint8 RGB.

    Metres in the optical frame (REP 103: x right, y down, z forward); NaN where depth is out of
    range or invalid. Every stride-th row and column, the first ones included, is taken.
    """
    z = depth_m[::stride, ::stride].astype(np.float32, copy=True)
    height, width = z.shape
    with np.errstate(invalid='ignore'):
        known = (z >= min_depth_m) & (z <= max_depth_m) & (z > 0)
    z[~known] = np.nan
    u, v = np.arange(width) * stride, np.arange(height) * stride
    x = ((u - intrinsics.cx_px) / intrinsics.fx_px).astype(np.float32)  # at a depth of 1 m
    y = ((v - intrinsics.cy_px) / intrinsics.fy_px).astype(np.float32)[:, None]
    message = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=_FIELDS,
        is_bigendian=False,
        point_step=_STEP,
        row_step=width * _STEP,
        is_dense=False,
    )
    # The message's own array, grown and filled in place: an array that is handed over is copied,
    # and these are 5 MB at 640x480.
    data = message.data
    data.append(0)
    data *= height * width * _STEP
    points = np.frombuffer(data, '<f4').reshape(height, width, 4)
    np.multiply(z, x, out=points[..., 0])
    np.multiply(z, y, out=points[..., 1])
    points[..., 2] = z
    bgra = cv2.cvtColor(np.ascontiguousarray(rgb[::stride, ::stride]), cv2.COLOR_RGB2BGRA)
    # Without alpha: of 255 it would make a NaN of many colours, and readers skip those points.
    np.bitwise_and(bgra.view('<u4')[..., 0], 0xFFFFFF, out=points.view('<u4')[..., 3])
    return message
