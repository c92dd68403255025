# SPDX-License-Identifier: Apache-2.0
"""The procedural room: exact, reproducible, varied, and honest about its camera."""

import hashlib
import itertools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from smoothdino_model.room.sample_room import SampleRoom

DIGEST = """
import hashlib, sys
from smoothdino_model.room.sample_room import SampleRoom
frame = SampleRoom(5, height=96, width=128).frame(17)
data = frame.rgb.tobytes() + frame.depth_m.tobytes() + frame.world_from_camera.tobytes()
print(hashlib.sha256(data).hexdigest())
"""


def shoot(room: SampleRoom, i: int) -> Any:
    """A frame; a room's have everything that a Frame may lack."""
    return room.frame(i)


def points_in_world(frame):
    """(H, W, 3) metres: every pixel lifted by its depth and pose."""
    k, pose = frame.intrinsics, frame.world_from_camera
    y, x = np.mgrid[: k.height, : k.width]
    rays = np.stack([(x - k.cx_px) / k.fx_px, (y - k.cy_px) / k.fy_px, np.ones(x.shape)], -1)
    return rays * frame.depth_m[..., None] @ pose[:3, :3].T + pose[:3, 3]


@pytest.mark.parametrize('seed', [1, 2, 3])
def test_depth_agrees_between_frames(seed):
    room = SampleRoom(seed, height=120, width=160)
    first, second = shoot(room, 30), shoot(room, 38)
    k, pose = room.intrinsics, second.world_from_camera
    seen = (points_in_world(first) - pose[:3, 3]) @ pose[:3, :3]
    z = np.where(seen[..., 2] > 0.1, seen[..., 2], np.nan)
    x = seen[..., 0] / z * k.fx_px + k.cx_px
    y = seen[..., 1] / z * k.fy_px + k.cy_px
    inside = (x > 0) & (x < k.width - 1) & (y > 0) & (y < k.height - 1)
    assert inside.mean() > 0.3
    there = second.depth_m[np.round(y[inside]).astype(int), np.round(x[inside]).astype(int)]
    error = np.abs(there - z[inside])
    assert np.median(error) < 0.01
    assert np.mean(error < 0.05) > 0.75  # the rest is hidden in one of the two


@pytest.mark.slow
def test_same_bytes_in_another_process():
    digests = set()
    for threads in ('1', '2'):
        env = dict(os.environ, OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads)
        command = [sys.executable, '-c', DIGEST]
        digests.add(subprocess.run(command, env=env, capture_output=True, check=True).stdout)
    frame = shoot(SampleRoom(5, height=96, width=128), 17)
    data = frame.rgb.tobytes() + frame.depth_m.tobytes() + frame.world_from_camera.tobytes()
    assert digests == {hashlib.sha256(data).hexdigest().encode() + b'\n'}


def test_order_of_questions_does_not_matter():
    forward, backward = (SampleRoom(6, height=60, width=80) for _ in range(2))
    first = [shoot(forward, i) for i in (0, 5, 9)]
    second = [shoot(backward, i) for i in (9, 5, 0, 9)]
    for a, b in zip(first, second[2::-1], strict=True):
        assert np.array_equal(a.rgb, b.rgb)
        assert np.array_equal(a.depth_m, b.depth_m)
    assert np.array_equal(second[0].rgb, second[3].rgb)


def test_seeds_and_moments_differ():
    rooms = [SampleRoom(seed, height=60, width=80) for seed in range(4)]
    pictures = [shoot(room, 0).rgb for room in rooms] + [shoot(rooms[0], 90).rgb]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert np.mean(np.abs(one.astype(int) - other)) > 3
    assert len({room.intrinsics.fx_px for room in rooms}) == 4


@pytest.mark.parametrize('seed', range(6))
def test_frames_are_whole_and_the_camera_is_in_the_open(seed):
    room = SampleRoom(seed, height=60, width=80)
    for i in range(0, 1800, 200):
        frame = shoot(room, i)
        assert frame.rgb.shape == (60, 80, 3)
        assert frame.rgb.dtype == np.uint8
        assert frame.depth_m.shape == (60, 80)
        assert frame.depth_m.dtype == np.float32
        assert np.isfinite(frame.depth_m).all()
        # a room is at most 9 x 7 x 3.2 m
        assert frame.depth_m.min() > 0.1
        assert frame.depth_m.max() < 11.9
        assert np.mean(frame.depth_m < 0.3) < 0.2
        assert frame.rgb.std() > 4
        rotation = frame.world_from_camera[:3, :3]
        assert np.allclose(rotation.T @ rotation, np.eye(3))
        assert np.linalg.det(rotation) > 0
        assert rotation[2, 1] < -0.5  # upright: the camera's down is the world's
        assert 0.55 < frame.world_from_camera[2, 3] < 1.95
        assert frame.stamp_ns == round(i * 1e9 / 30)


@pytest.mark.slow
def test_camera_moves_like_a_hand():
    turns, speeds = [], []
    for seed in range(6):
        room = SampleRoom(seed, height=16, width=16)
        poses = [shoot(room, i).world_from_camera for i in range(0, 300, 3)]
        for a, b in itertools.pairwise(poses):
            cosine = (np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2
            turns.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))) * 10)
            speeds.append(np.linalg.norm(a[:3, 3] - b[:3, 3]) * 10)
    assert 5 < np.median(turns) < 45
    assert np.max(turns) < 200
    assert 0.05 < np.median(speeds) < 0.6
    assert np.max(speeds) < 3


def test_focal_length_is_a_pinholes():
    wide = SampleRoom(3, height=121, width=161, focal_px=100.0, clean=True)
    narrow = SampleRoom(3, height=121, width=161, focal_px=200.0, clean=True)
    assert wide.intrinsics.fx_px == 100.0
    assert narrow.intrinsics.fy_px == 200.0
    a, b = shoot(wide, 4), shoot(narrow, 4)
    assert np.array_equal(a.world_from_camera, b.world_from_camera)
    # every second pixel of the long lens shows what the middle of the short lens shows
    assert np.allclose(a.depth_m[30:91, 40:121], b.depth_m[::2, ::2], rtol=1e-4, atol=1e-4)
    known = SampleRoom(9, height=240, width=320).intrinsics.fx_px / (518.86 / 2)
    assert 0.7 <= known <= 1.5


@pytest.mark.parametrize(
    'arguments',
    [{'height': 0}, {'width': 15}, {'width': 5000}, {'height': 60.5}, {'focal_px': 0.0},
     {'focal_px': float('nan')}, {'rate_hz': 0.0}, {'seed': -1}],
)  # fmt: skip
def test_bad_arguments_are_refused_in_words(arguments):
    with pytest.raises(ValueError, match=r'expected .* got .*;'):
        SampleRoom(arguments.pop('seed', 0), **arguments)


def test_bad_frame_number_is_refused_in_words():
    with pytest.raises(ValueError, match='expected a frame number >= 0, got -1'):
        SampleRoom(0, height=16, width=16).frame(-1)
