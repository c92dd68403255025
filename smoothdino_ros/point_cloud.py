# SPDX-License-Identifier: Apache-2.0
"""Depth and its picture as a PointCloud2."""

from __future__ import annotations

import array

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
    max_range_m: float = 0.0,
    voxel_m: float = 0.0,
) -> PointCloud2:
    """A cloud of (H, W) float32 metres and their (H, W, 3) uint8 RGB.

    Metres in the optical frame (REP 103: x right, y down, z forward). Every stride-th row and
    column, the first ones included, is taken. It is organised, with NaN where depth is out of
    range or invalid; with a max_range_m, from the camera, or a voxel_m, which are off at 0, it is
    a list of those within range, one of them for each cube of that size.
    """
    z = depth_m[::stride, ::stride].astype(np.float32, copy=True)
    height, width = z.shape
    with np.errstate(invalid='ignore'):
        known = (z >= min_depth_m) & (z <= max_depth_m) & (z > 0)
    z[~known] = np.nan
    u, v = np.arange(width) * stride, np.arange(height) * stride
    x = ((u - intrinsics.cx_px) / intrinsics.fx_px).astype(np.float32)  # at a depth of 1 m
    y = ((v - intrinsics.cy_px) / intrinsics.fy_px).astype(np.float32)[:, None]
    # A message's own array, grown and filled in place: an array that is handed over is copied,
    # and these are 5 MB at 640x480.
    whole = _message(header, height, width)
    data = whole.data
    data.append(0)
    data *= height * width * _STEP
    points = np.frombuffer(data, '<f4').reshape(height, width, 4)
    np.multiply(z, x, out=points[..., 0])
    np.multiply(z, y, out=points[..., 1])
    points[..., 2] = z
    bgra = cv2.cvtColor(np.ascontiguousarray(rgb[::stride, ::stride]), cv2.COLOR_RGB2BGRA)
    # Without alpha: of 255 it would make a NaN of many colours, and readers skip those points.
    np.bitwise_and(bgra.view('<u4')[..., 0], 0xFFFFFF, out=points.view('<u4')[..., 3])
    if not (max_range_m or voxel_m):
        return whole
    if max_range_m:
        with np.errstate(invalid='ignore'):
            known &= z * z * (1 + x * x + y * y) <= max_range_m**2
    some = points.reshape(-1, 4).take(np.flatnonzero(known), axis=0)
    if voxel_m:
        some = some[_one_of_each_cube(some[:, :3], voxel_m)]
    thinned = _message(header, 1, len(some), is_dense=True)
    thinned.data = array.array('B', some.tobytes())
    return thinned


def _message(header: Header, height: int, width: int, *, is_dense: bool = False) -> PointCloud2:
    return PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=_FIELDS,
        is_bigendian=False,
        point_step=_STEP,
        row_step=width * _STEP,
        is_dense=is_dense,
    )


def _one_of_each_cube(xyz: np.ndarray, edge_m: float) -> np.ndarray:
    """Which of (N, 3) points to keep: of each cube that holds some the one next to its centre."""
    cells = xyz / np.float32(edge_m)
    corners = np.floor(cells)
    x, y, z = corners.astype(np.int64).T
    off = cells - corners - np.float32(0.5)
    distance = (255 / 0.75 * np.einsum('ij,ij->i', off, off)).astype(np.int64)  # squared, 8 bits
    # One number to sort by, with 18 bits for each axis: a kilometre of the smallest cubes.
    key = (x << 44) + (y << 26) + (z << 8) + distance
    order = np.argsort(key, kind='stable')
    cube = key[order] >> 8
    return np.sort(order[np.flatnonzero(np.diff(cube, prepend=cube[:1] - 1))])
