# SPDX-License-Identifier: Apache-2.0
"""The scale of depth from what else measures distance: laser scans, sonar, sparse points.

Messages are rclpy's or rosbags', by their fields (sensor_msgs LaserScan, Range and PointCloud2).
Points are (N, 3) in metres; in the camera's axes x is right, y down and z forward.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.measurement import Measurement

_LEAST_Z_M = 0.05  # in front of the camera
_MOST_POINTS = 20_000  # of a cloud: beyond, every few of them say the same
# Of the logarithm of the scale: what is looked for, in bins, smoothed, and how near an inlier is.
_MOST, _BIN, _SMOOTH, _NEAR = 2.0, 0.02, 0.08, 0.25
_LEAST_INLIERS, _LEAST_SHARE = 8, 0.4  # that agree, and of those that fall on the picture
_STEPS = 3  # of Huber's estimate: each goes most of what is left of the way
# A row of points is a small part of a picture that is bent, which many points know no better than
# a few: how much is told by how far they disagree, near and far, and by the share of outliers.
# Fitted to what rows of 12 rooms and four clips said of the whole.
_LEAST_SPREAD, _OF_SCATTER, _OF_OUTLIERS = 0.05, 0.4, 0.3
_ONE_POINT = 0.2  # the spread of a single point's scale, within a picture that is bent
_RING = 5  # points across the cone of a Range
_CONE_SPREAD = 0.15  # of what a single distance says of a whole picture

_EDGES = np.arange(round(2 * _MOST / _BIN) + 1) * _BIN - _MOST
_WIDE = round(_NEAR / _BIN)
_KERNEL = np.exp(-0.5 * (np.arange(-_WIDE, _WIDE + 1) * _BIN / _SMOOTH) ** 2)


def points_scale(depth_m: np.ndarray, camera: Intrinsics, points_m: np.ndarray) -> Measurement:
    """Compare depth (H, W) with points (N, 3) in the camera's axes, where they fall on it.

    What disagrees with the most of them (glass, a corner that hides from one of the two, a scan of
    another height) pulls no more than the farthest that agrees, and makes the spread larger; where
    no more than chance agrees, nothing is said.
    """
    log_scale, z_m = _log_scales(depth_m, camera, points_m)
    seen = log_scale.size
    if seen < _LEAST_INLIERS:
        return Measurement(samples=seen, why_none=f'{seen} points fall on the picture')
    counts = np.histogram(log_scale, _EDGES)[0].astype(float)
    mode = _EDGES[np.convolve(counts, _KERNEL, 'same').argmax()] + _BIN / 2
    near = np.abs(log_scale - mode) <= _NEAR
    inliers = log_scale[near]
    if inliers.size < max(_LEAST_INLIERS, _LEAST_SHARE * seen):
        return Measurement(
            samples=seen,
            why_none=f'of {seen} points no more than {inliers.size} agree with one scale',
        )
    # Huber's estimate: what most of a row sees, a far wall, is not the whole picture.
    middle = float(np.median(inliers))
    for _ in range(_STEPS):
        middle = float(np.clip(log_scale, middle - _NEAR, middle + _NEAR).mean())
    spread = math.hypot(
        _OF_SCATTER * 1.4826 * float(np.median(np.abs(log_scale - middle))),
        _OF_OUTLIERS * (1 - inliers.size / seen),
        _LEAST_SPREAD,
        _ONE_POINT / math.sqrt(inliers.size),
    )
    return Measurement(middle, spread, inliers.size, seen, float(np.median(z_m[near])))


def cone_scale(depth_m: np.ndarray, camera: Intrinsics, points_m: np.ndarray) -> Measurement:
    """Compare depth (H, W) with the nearest thing in a cone, by points at its distance.

    The whole cone is free up to there, and somewhere in it is something: the scale is the one at
    which the nearest of depth touches the points (N, 3), in the camera's axes.
    """
    log_scale, z_m = _log_scales(depth_m, camera, points_m)
    if log_scale.size < len(points_m) / 2 or not log_scale.size:
        return Measurement(why_none='the cone of the range lies outside of the picture')
    nearest = float(np.percentile(log_scale, 90))  # the very nearest would be noise
    return Measurement(nearest, _CONE_SPREAD, 1, 1, float(np.median(z_m)))


def scan_points(scan: Any) -> np.ndarray:
    """Give the points (N, 3) of a LaserScan in its own frame; no return and NaN are left out."""
    ranges = np.asarray(scan.ranges, np.float64)
    angles = scan.angle_min + scan.angle_increment * np.arange(ranges.size)
    good = _measured(ranges, least=scan.range_min, most=scan.range_max) & np.isfinite(angles)
    ranges, angles = ranges[good], angles[good]
    return np.stack((ranges * np.cos(angles), ranges * np.sin(angles), 0 * ranges), axis=-1)


def range_points(message: Any) -> np.ndarray:
    """Give points (N, 3) all over the cone of a Range, about x, at its distance.

    There are none where it sees nothing.
    """
    distance = np.asarray([message.range], np.float64)
    half = message.field_of_view / 2
    seen = _measured(distance, least=message.min_range, most=message.max_range)
    if not seen[0] or not 0 <= half < math.pi / 2:
        return np.empty((0, 3))
    across = np.linspace(-half, half, _RING)
    right, up = (angle.ravel() for angle in np.meshgrid(across, across))
    inside = np.hypot(right, up) <= half + 1e-9
    tangents = np.stack((np.ones(right.size), np.tan(right), np.tan(up)), axis=-1)[inside]
    return distance * tangents / np.linalg.norm(tangents, axis=-1, keepdims=True)


def cloud_points(cloud: Any) -> np.ndarray:
    """Give the finite points (N, 3) of a PointCloud2 in its own frame, at most some 20 000.

    Raises ValueError where it has no x, y and z of 32 or 64 bit floating point, or less data than
    it says.
    """
    fields = {field.name: field for field in cloud.fields}
    kinds = {7: 'f4', 8: 'f8'}
    if not all(axis in fields and fields[axis].datatype in kinds for axis in 'xyz'):
        raise ValueError(
            f'expected a PointCloud2 with x, y and z as FLOAT32 or FLOAT64, got {sorted(fields)}'
        )
    data = np.frombuffer(cloud.data, np.uint8)
    needed = (cloud.height - 1) * cloud.row_step + cloud.width * cloud.point_step
    ends = (fields[axis].offset + int(kinds[fields[axis].datatype][1]) for axis in 'xyz')
    if not cloud.width * cloud.height:
        return np.empty((0, 3))
    if data.size < needed or max(ends) > cloud.point_step:
        raise ValueError(
            f'expected {needed} bytes of {cloud.width}x{cloud.height} points of '
            f'{cloud.point_step} bytes each, with x, y and z in them, got {data.size}'
        )
    order = '>' if cloud.is_bigendian else '<'
    axes = [
        np.ndarray(
            (cloud.height, cloud.width),
            order + kinds[fields[axis].datatype],
            data,
            fields[axis].offset,
            (cloud.row_step, cloud.point_step),
        ).ravel()
        for axis in 'xyz'
    ]
    step = max(1, axes[0].size // _MOST_POINTS)
    points = np.stack([axis[::step] for axis in axes], axis=-1).astype(np.float64)
    return points[np.isfinite(points).all(axis=-1)]


def mounted(
    x_m: float, y_m: float, z_m: float, roll_deg: float, pitch_deg: float, yaw_deg: float
) -> np.ndarray:
    """Give camera_from_sensor (4, 4) of a sensor that is so far ahead, left and up of the camera.

    The angles are those of the sensor's x ahead, y left and z up against the camera's (REP 103,
    URDF: roll, then pitch, then yaw).
    """
    r, p, y = (math.radians(angle) for angle in (roll_deg, pitch_deg, yaw_deg))
    roll = np.array(((1, 0, 0), (0, math.cos(r), -math.sin(r)), (0, math.sin(r), math.cos(r))))
    pitch = np.array(((math.cos(p), 0, math.sin(p)), (0, 1, 0), (-math.sin(p), 0, math.cos(p))))
    yaw = np.array(((math.cos(y), -math.sin(y), 0), (math.sin(y), math.cos(y), 0), (0, 0, 1)))
    optical = np.array(((0, -1, 0), (0, 0, -1), (1, 0, 0)), float)
    camera_from_sensor = np.eye(4)
    camera_from_sensor[:3, :3] = optical @ yaw @ pitch @ roll
    camera_from_sensor[:3, 3] = optical @ (x_m, y_m, z_m)
    return camera_from_sensor


def moved(points_m: np.ndarray, camera_from_sensor: np.ndarray) -> np.ndarray:
    """Take points (N, 3) to the camera's axes by a transform (4, 4)."""
    return points_m @ camera_from_sensor[:3, :3].T + camera_from_sensor[:3, 3]


def _measured(ranges: np.ndarray, *, least: float, most: float) -> np.ndarray:
    """Tell which ranges are some: Inf and NaN (REP 117), 0 and the most are nothing seen."""
    return np.isfinite(ranges) & (ranges > 0) & (ranges >= least) & (ranges < most)


def _log_scales(
    depth_m: np.ndarray, camera: Intrinsics, points_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the points that fall on the picture: log of their depth over its, and their depth."""
    if depth_m.shape != (camera.height, camera.width):
        raise ValueError(
            f'expected depth of {camera.height, camera.width}, the size of its camera, got '
            f'{depth_m.shape}'
        )
    points = points_m[np.isfinite(points_m).all(axis=-1) & (points_m[:, 2] > _LEAST_Z_M)]
    x, y, z = points.T
    column = camera.fx_px * x / z + camera.cx_px
    row = camera.fy_px * y / z + camera.cy_px
    inside = (
        (column > -0.5)
        & (column < camera.width - 0.5)
        & (row > -0.5)
        & (row < camera.height - 0.5)
    )
    at = np.rint(row[inside]).astype(np.intp), np.rint(column[inside]).astype(np.intp)
    with np.errstate(invalid='ignore', divide='ignore'):
        log_scale = np.log(z[inside]) - np.log(depth_m[at])
    known = np.isfinite(log_scale)
    return log_scale[known], z[inside][known]
