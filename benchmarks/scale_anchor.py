# SPDX-License-Identifier: Apache-2.0
"""What anchors of the scale cost, beside the network: python -m benchmarks.scale_anchor

Of a frame of 640x480 of a room. What they buy is printed by training.evaluate --scale-anchor.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np

from benchmarks.machine import cpu_name
from smoothdino_model import (
    CameraFrame,
    DepthPipeline,
    Frame,
    floor_of_pose,
    floor_scale,
    points_scale,
)
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.scale.measurement import Measurement

UNSEEN_ROOM = 1_000_100
TIMED = 200


def main() -> None:
    parser = argparse.ArgumentParser(prog='scale_anchor', description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='smoothdino-small')
    parser.add_argument('--device', default='auto')
    options = parser.parse_args()
    pipeline = DepthPipeline.from_pretrained(options.model, device=options.device)
    frame = SampleRoom(UNSEEN_ROOM, height=480, width=640).frame(0)
    pipeline.step({'': CameraFrame(frame.rgb, 0)})
    start_s = perf_counter()
    depth_m = pipeline.step({'': CameraFrame(frame.rgb, 1)})[''].depth_m
    print(f'{cpu_name()}, 640x480: the network {1000 * (perf_counter() - start_s):.0f} ms')
    for name, anchor in _anchors(frame).items():
        taken_ms = []
        for _ in range(TIMED):
            start_s = perf_counter()
            anchor(depth_m)
            taken_ms.append(1000 * (perf_counter() - start_s))
        p50, p99 = np.percentile(taken_ms, (50, 99))
        print(f'{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms')


def _anchors(frame: Frame) -> dict[str, Callable[[np.ndarray], Measurement]]:
    """The floor, and a scan that sees the middle row of the true depth."""
    camera, truth_m, pose = frame.intrinsics, frame.depth_m, frame.world_from_camera
    assert camera is not None
    assert truth_m is not None
    assert pose is not None
    row = camera.height // 2
    z = truth_m[row]
    x = (np.arange(camera.width) - camera.cx_px) / camera.fx_px * z
    points_m = np.stack((x, (row - camera.cy_px) / camera.fy_px * z, z), axis=-1)
    return {
        'floor': partial(floor_scale, camera=camera, floor=floor_of_pose(pose)),
        'scan': partial(points_scale, camera=camera, points_m=points_m),
    }


if __name__ == '__main__':
    main()
