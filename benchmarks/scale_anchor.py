# SPDX-License-Identifier: Apache-2.0
"""What anchors of the scale cost, beside the network: python -m benchmarks.scale_anchor

Of frames of 640x480 of a room; the floor is with what looks like one to the model, odometry with
the corners of each picture followed. What they buy is printed by training.evaluate --scale-anchor.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from time import perf_counter

import numpy as np
import torch

from benchmarks.machine import cpu_name
from smoothdino_model import (
    CameraFrame,
    DepthPipeline,
    Frame,
    SmoothDino,
    floor_of_pose,
    floor_scale,
    load_model,
    points_scale,
)
from smoothdino_model.recordings.frames import PERIOD_NS
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.scale.measurement import Measurement, vouched
from smoothdino_model.scale.motion import motion_scale
from smoothdino_model.scale.tracks import Tracker

UNSEEN_ROOM = 1_000_100
TIMED = 200
RIDE = 20  # frames, there and back again


def main() -> None:
    parser = argparse.ArgumentParser(prog='scale_anchor', description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='smoothdino-small')
    parser.add_argument('--device', default='auto')
    options = parser.parse_args()
    pipeline = DepthPipeline.from_pretrained(options.model, device=options.device)
    room = SampleRoom(UNSEEN_ROOM, height=480, width=640)
    frame = room.frame(0)
    pipeline.step({'': CameraFrame(frame.rgb, 0)})
    start_s = perf_counter()
    depth_m = pipeline.step({'': CameraFrame(frame.rgb, 1)})[''].depth_m
    print(f'{cpu_name()}, 640x480: the network {1000 * (perf_counter() - start_s):.0f} ms')
    anchors = _anchors(frame, load_model(options.model).eval())
    anchors |= {'odometry': _odometry([room.frame(i) for i in range(RIDE)])}
    for name, anchor in anchors.items():
        taken_ms = []
        for _ in range(TIMED):
            start_s = perf_counter()
            anchor(depth_m)
            taken_ms.append(1000 * (perf_counter() - start_s))
        p50, p99 = np.percentile(taken_ms, (50, 99))
        print(f'{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms')


def _anchors(frame: Frame, model: SmoothDino) -> dict[str, Callable[[np.ndarray], Measurement]]:
    """The floor, and a scan that sees the middle row of the true depth."""
    camera, truth_m, pose = frame.intrinsics, frame.depth_m, frame.world_from_camera
    assert camera is not None
    assert truth_m is not None
    assert pose is not None
    row = camera.height // 2
    z = truth_m[row]
    x = (np.arange(camera.width) - camera.cx_px) / camera.fx_px * z
    points_m = np.stack((x, (row - camera.cy_px) / camera.fy_px * z, z), axis=-1)
    with torch.inference_mode():
        _, state = model(torch.from_numpy(frame.rgb)[None], None)
    floor = floor_of_pose(pose)

    @torch.inference_mode()
    def by_floor(depth_m: np.ndarray) -> Measurement:
        odds = None if state is None else model.floor_odds(state)
        looks = None if odds is None else odds[0].numpy()
        return vouched(floor_scale(depth_m, camera, floor), looks)

    return {
        'floor': by_floor,
        'scan': partial(points_scale, camera=camera, points_m=points_m),
    }


def _odometry(ride: Sequence[Frame]) -> Callable[[np.ndarray], Measurement]:
    """Follow the next frame of the ride, from one end to the other and back, and measure."""
    tracker, camera = Tracker(), ride[0].intrinsics
    assert camera is not None
    numbers = cycle((*range(len(ride)), *reversed(range(len(ride)))))
    poses: dict[int, np.ndarray] = {}

    def anchor(depth_m: np.ndarray) -> Measurement:
        frame, stamp_ns = ride[next(numbers)], len(poses) * PERIOD_NS
        assert frame.world_from_camera is not None
        poses[stamp_ns] = frame.world_from_camera
        tracks = tracker.follow(frame.rgb, stamp_ns)
        if tracks is None:
            return Measurement(why_none='the first picture')
        moved = np.linalg.solve(poses[stamp_ns], poses[tracks.key_ns])
        return motion_scale(depth_m, camera, tracks, moved)

    return anchor


if __name__ == '__main__':
    main()
