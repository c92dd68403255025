# SPDX-License-Identifier: Apache-2.0
"""What clip.json tells of a clip: its camera, when its frames were taken, and from where.

``{"intrinsics": {"fx_px", "fy_px", "cx_px", "cy_px", "width", "height"}, "stamps_ns": …,
"world_from_camera": …}``, and of the floor either ``"camera_height_m", "camera_pitch_deg",
"camera_roll_deg"`` as :func:`floor_of_tilt` takes them, of a camera that is mounted, or, with
poses, ``"world_floor": [x, y, z, m]``: in their world (x, y, z) points up, and the floor lies m
metres along it. All of them are optional. What differs from frame to frame is ``{"<i>": value}``,
or a list with a value for each picture, in the order of their numbers. Poses are (4, 4) in metres;
they may also stand in ``poses.txt``, a line for each picture: its number and 16 numbers by rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from smoothdino_model.network.trained_camera import NYU
from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.floor import Floor, floor_of_pose, floor_of_tilt

# Focal length over the width of a 4:3 picture that metric depth is learnt at: that of NYUv2.
TRAINED_FOCAL = NYU.focal_px / NYU.width


@dataclass(frozen=True, eq=False)
class Described:
    """A clip's camera, and by the number of a picture its stamp, pose (4, 4) and floor."""

    camera: Intrinsics | None = None
    stamps_ns: Mapping[int, int] = field(default_factory=dict)
    poses: Mapping[int, np.ndarray] = field(default_factory=dict)
    floors: Mapping[int, Floor] = field(default_factory=dict)

    @property
    def focal(self) -> float:
        return self.camera.focal if self.camera else TRAINED_FOCAL

    @property
    def middle(self) -> tuple[float, float]:
        """The principal point over the image's width and height."""
        camera = self.camera
        if camera is None:
            return 0.5, 0.5
        return (camera.cx_px + 0.5) / camera.width, (camera.cy_px + 0.5) / camera.height


def read_clip_json(path: Path, numbers: Sequence[int]) -> Described:
    """Read what is told of the pictures of these numbers.

    Raises ``OSError``, or ``ValueError``, ``KeyError``, ``TypeError`` or ``AttributeError`` where
    it is not as described above.
    """
    described = json.loads(path.read_text(encoding='utf-8'))
    camera = described.get('intrinsics')
    intrinsics = _intrinsics(camera) if camera else None
    if intrinsics and not 0 < intrinsics.focal < float('inf'):
        raise ValueError(f'expected a focal length over 0, got {intrinsics.focal} widths')
    stamps_ns = _by_number(described.get('stamps_ns') or {}, numbers)
    told = _by_number(described.get('world_from_camera') or {}, numbers)
    told = told or _listed(path.with_name('poses.txt'))
    poses = {i: np.array(pose, np.float64).reshape(4, 4) for i, pose in told.items()}
    return Described(
        intrinsics,
        {i: int(ns) for i, ns in stamps_ns.items()},
        poses,
        floors_of(described, numbers, poses),
    )


def floors_of(
    told: Mapping[str, Any], numbers: Sequence[int], poses: Mapping[int, np.ndarray]
) -> dict[int, Floor]:
    """Give the floor under the camera of each picture for which it is told."""
    if 'world_floor' in told:
        x, y, z, at_m = (float(value) for value in told['world_floor'])
        up = np.array((x, y, z)) / np.linalg.norm((x, y, z))
        return {i: floor_of_pose(pose, up=up, floor_m=at_m) for i, pose in poses.items()}
    if 'camera_height_m' not in told:
        return {}
    height_m, pitch_deg = told['camera_height_m'], told['camera_pitch_deg']
    floor = floor_of_tilt(float(height_m), float(pitch_deg), float(told.get('camera_roll_deg', 0)))
    return dict.fromkeys(numbers, floor)


def _listed(path: Path) -> dict[int, Any]:
    if not path.exists():
        return {}
    lines = (line.split() for line in path.read_text(encoding='utf-8').splitlines())
    return {int(number): [float(one) for one in pose] for number, *pose in filter(None, lines)}


def _by_number(values: Any, numbers: Sequence[int]) -> dict[int, Any]:
    if isinstance(values, list):
        return dict(zip(numbers, values, strict=True))
    return {int(i): value for i, value in values.items()}


def _intrinsics(camera: Mapping[str, float]) -> Intrinsics:
    width, height = int(camera['width']), int(camera.get('height', 0.75 * camera['width']))
    fx_px = float(camera['fx_px'])
    return Intrinsics(
        fx_px,
        float(camera.get('fy_px', fx_px)),
        float(camera.get('cx_px', (width - 1) / 2)),
        float(camera.get('cy_px', (height - 1) / 2)),
        width,
        height,
    )
