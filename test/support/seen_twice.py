# SPDX-License-Identifier: Apache-2.0
"""A textured room seen from anywhere, in pictures and in exact tracks."""

import cv2
import numpy as np

from smoothdino_model.scale.tracks import Tracks
from support.made_views import CAMERA, planes_m, pose_of, rays


def anywhere(points):
    return np.ones(points.shape[:2], bool)


# Walls 4 m ahead and 2 m to each side, a pillar before them, and a floor.
ROOM = [
    ((0.0, 0.0, 1.0), 0.0, anywhere),
    ((1.0, 0.0, 0.0), 4.0, anywhere),
    ((0.0, 1.0, 0.0), 2.0, anywhere),
    ((0.0, 1.0, 0.0), -2.0, anywhere),
    ((1.0, 0.0, 0.0), 2.0, lambda p: np.abs(p[..., 1] + 0.4) < 0.3),
]


def pose_at(*, x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    return pose_of(0.6, 5, 0, x=x, y=y, yaw=yaw)


def seen(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture (H, W, 3) and the depth (H, W) of the room from there."""
    depth_m = planes_m(ROOM, pose)
    points = pose[:3, 3] + depth_m[..., None] * (rays(CAMERA) @ pose[:3, :3].T)
    rng = np.random.default_rng(0)
    light = np.zeros(depth_m.shape)
    for _ in range(40):
        wave = rng.normal(0, 9, 3)
        light += np.sin(points @ wave + rng.uniform(0, 6.3))
    grey = np.clip(128 + 18 * light, 0, 255).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), depth_m


def tracks_between(key: np.ndarray, now: np.ndarray, *, noise_px: float = 0.2) -> Tracks:
    """Where each 16th pixel of the picture from one pose is seen from another, if it is."""
    depth_m = planes_m(ROOM, now)
    rows, columns = (index[::16, ::16].ravel() for index in np.indices(depth_m.shape))
    points = rays(CAMERA)[rows, columns] * depth_m[rows, columns, None]
    points = (points @ now[:3, :3].T + now[:3, 3] - key[:3, 3]) @ key[:3, :3]
    was_px = points[:, :2] / points[:, 2:] * CAMERA.fx_px + (CAMERA.cx_px, CAMERA.cy_px)
    was_px += np.random.default_rng(1).normal(0, noise_px, was_px.shape)
    are_px = np.stack((columns, rows), axis=1).astype(float)
    there = points[:, 2] > 0.1
    return Tracks(0, was_px[there], are_px[there])
