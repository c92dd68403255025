# SPDX-License-Identifier: Apache-2.0
"""Views with exact depth of rooms and of plain scenes, and depth as a network gives it."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.room.sample_room import SampleRoom

CAMERA = Intrinsics(260.0, 260.0, 159.5, 119.5, 320, 240)


@dataclass(frozen=True, eq=False)
class View:
    """Depth (H, W) in metres of a camera at a height and tilt, and where it shows floor."""

    depth_m: np.ndarray
    camera: Intrinsics
    height_m: float
    pitch_deg: float
    roll_deg: float
    is_floor: np.ndarray


def room_views(rooms: int, each: int, *, seed: int = 0) -> list[View]:
    """Cameras 0.2 to 1.8 m over the floor, from 20 degrees up to 30 degrees down, anywhere."""
    views = []
    for number in range(rooms):
        room = SampleRoom(1_000_000 + number, height=240, width=320, clean=True)
        rng = np.random.default_rng((seed, number))
        for _ in range(each):
            ride = room._ride.pose(rng.uniform(0, 60))
            yaw = math.atan2(ride[1, 2], ride[0, 2])
            height_m, pitch, roll = rng.uniform((0.2, -20, -5), (1.8, 30, 5)).tolist()
            pose = pose_of(height_m, pitch, roll, yaw=yaw, x=ride[0, 3], y=ride[1, 3])
            depth_m = 1 / room._rasterise(pose)[0]
            over_floor_m = heights_m(depth_m, room.intrinsics, pose)
            is_floor = np.abs(over_floor_m) < 0.02
            views.append(View(depth_m, room.intrinsics, height_m, pitch, roll, is_floor))
    return views


def pose_of(
    height_m: float,
    pitch_deg: float,
    roll_deg: float,
    *,
    yaw: float = 0.0,
    x: float = 0.0,
    y: float = 0.0,
) -> np.ndarray:
    """floor_from_camera (4, 4) of an optical frame by the angles of the camera (REP 103)."""
    optical = np.array(((0, 0, 1), (-1, 0, 0), (0, -1, 0)), float)
    turns = [_turn(2, yaw), _turn(1, math.radians(pitch_deg)), _turn(0, math.radians(roll_deg))]
    pose = np.eye(4)
    pose[:3, :3] = np.linalg.multi_dot([*turns, optical])
    pose[:3, 3] = x, y, height_m
    return pose


def _turn(axis: int, angle: float) -> np.ndarray:
    """Rotation (3, 3) about an axis, right-handed."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[i, i] = turn[j, j] = math.cos(angle)
    turn[j, i], turn[i, j] = math.sin(angle), -math.sin(angle)
    return turn


def rays(camera: Intrinsics) -> np.ndarray:
    """(H, W, 3) of depth 1."""
    x = (np.arange(camera.width) - camera.cx_px) / camera.fx_px
    y = (np.arange(camera.height) - camera.cy_px) / camera.fy_px
    return np.stack(np.broadcast_arrays(x, y[:, None], 1.0), axis=-1)


def heights_m(
    depth_m: np.ndarray, camera: Intrinsics, floor_from_camera: np.ndarray
) -> np.ndarray:
    return floor_from_camera[2, 3] + depth_m * (rays(camera) @ floor_from_camera[2, :3])


def planes_m(planes, floor_from_camera: np.ndarray, camera: Intrinsics = CAMERA) -> np.ndarray:
    """Depth (H, W) of the nearest of some planes, 50 m where there is none.

    Each is a normal and an offset, n · x = d, in the floor's frame (x ahead, y left, z up), and a
    function that tells at which of its points (..., 3) it is there.
    """
    directions = rays(camera) @ floor_from_camera[:3, :3].T
    nearest = np.full(directions.shape[:2], 50.0)
    for normal, offset, there in planes:
        with np.errstate(divide='ignore', invalid='ignore'):
            depth = (offset - np.dot(normal, floor_from_camera[:3, 3])) / (directions @ normal)
        points = floor_from_camera[:3, 3] + directions * depth[..., None]
        hit = (depth > 0) & there(points)
        nearest[hit] = np.minimum(nearest, depth)[hit]
    return nearest.astype(np.float32)


def as_by_a_network(
    depth_m: np.ndarray, rng: np.random.Generator, *, scale: float = 1.0, bend=0.1, noise=0.03
) -> np.ndarray:
    """Blur depth, bend it smoothly and let it be noisy, both in the logarithm, and scale it."""
    height, width = depth_m.shape
    bent = rng.normal(0, bend, (4, 5)).astype(np.float32)
    rough = rng.normal(0, noise, (height // 4, width // 4)).astype(np.float32)
    log_depth = cv2.GaussianBlur(np.log(depth_m).astype(np.float32), (0, 0), width / 100)
    log_depth += cv2.resize(bent, (width, height), interpolation=cv2.INTER_CUBIC)
    log_depth += cv2.resize(rough, (width, height))
    return np.exp(log_depth) * np.float32(scale)
