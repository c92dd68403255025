# SPDX-License-Identifier: Apache-2.0
"""What anchors of the scale buy and cost, on rooms that no training saw:

python -m benchmarks.scale_anchor --model smoothdino-small

Each room is ridden through at 5 Hz with depth steadied over time. AbsRel is printed as it is,
with the floor (height and tilt are exact), with a scan (the middle row of the true depth, 2 cm of
noise, a tenth dropped) and with the best single scale of each frame; then what a frame of 640x480
costs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np
from tqdm import tqdm

from benchmarks.machine import cpu_name
from smoothdino_model import (
    CameraFrame,
    DepthPipeline,
    Frame,
    Intrinsics,
    floor_of_pose,
    floor_scale,
    points_scale,
)
from smoothdino_model.metrics import abs_rel
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.scale.filter import ScaleState, filtered
from smoothdino_model.scale.measurement import Measurement

FIRST_UNSEEN_ROOM = 1_000_100
RATE_HZ = 5.0
TIMED = 200

Anchor = Callable[[np.ndarray], Measurement]


def main() -> None:
    parser = argparse.ArgumentParser(prog='scale_anchor', description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='smoothdino-small')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--rooms', type=int, default=6)
    parser.add_argument('--frames', type=int, default=40)
    options = parser.parse_args()
    pipeline = DepthPipeline.from_pretrained(options.model, device=options.device)
    print(f'{"room":>9}{"as it is":>10}{"floor":>8}{"scan":>8}{"best":>8}')
    errors = []
    for number in tqdm(range(options.rooms), disable=None, leave=False):
        room = SampleRoom(FIRST_UNSEEN_ROOM + number, height=240, width=320, rate_hz=RATE_HZ)
        pipeline.reset()
        errors.append(_ridden(pipeline, [room.frame(i) for i in range(options.frames)]))
        print(f'{number:>9}' + _figures(errors[-1]), flush=True)
    print(f'{"mean":>9}' + _figures(np.mean(errors, axis=0)))
    _print_cost(pipeline)


def _figures(errors: np.ndarray) -> str:
    return f'{errors[0]:10.3f}' + ''.join(f'{one:8.3f}' for one in errors[1:])


def _ridden(pipeline: DepthPipeline, frames: list[Frame]) -> np.ndarray:
    """Mean AbsRel (4,) of a stream: as it is, by the floor, by a scan, by the best scale."""
    errors, states = [], dict.fromkeys(('floor', 'scan'))
    for frame in frames:
        camera, truth_m = _known(frame)
        asked = CameraFrame(frame.rgb, frame.stamp_ns, focal=camera.focal)
        depth_m = pipeline.step({'': asked})[''].depth_m
        found = [abs_rel(depth_m, truth_m)]
        for name, anchor in _anchors(frame).items():
            state = _after(states[name], anchor(depth_m), frame.stamp_ns)
            states[name] = state
            found.append(abs_rel(depth_m * state.scale, truth_m))
        best = float(np.median(truth_m / depth_m))
        errors.append([*found, abs_rel(depth_m * best, truth_m)])
    return np.mean(errors, axis=0)


def _after(state: ScaleState | None, measured: Measurement, stamp_ns: int) -> ScaleState:
    return filtered(state, [measured], stamp_ns=stamp_ns, least=0.25, most=4.0)


def _known(frame: Frame) -> tuple[Intrinsics, np.ndarray]:
    assert frame.intrinsics is not None
    assert frame.depth_m is not None
    return frame.intrinsics, frame.depth_m


def _anchors(frame: Frame) -> dict[str, Anchor]:
    camera, truth_m = _known(frame)
    assert frame.world_from_camera is not None
    rng = np.random.default_rng(frame.stamp_ns)
    column = np.flatnonzero(rng.random(camera.width) < 0.9)
    row = camera.height // 2
    z = truth_m[row, column] + rng.normal(0, 0.02, len(column))
    x = (column - camera.cx_px) / camera.fx_px * z
    points_m = np.stack((x, (row - camera.cy_px) / camera.fy_px * z, z), axis=-1)
    floor = floor_of_pose(frame.world_from_camera)
    return {
        'floor': partial(floor_scale, camera=camera, floor=floor),
        'scan': partial(points_scale, camera=camera, points_m=points_m),
    }


def _print_cost(pipeline: DepthPipeline) -> None:
    frame = SampleRoom(FIRST_UNSEEN_ROOM, height=480, width=640).frame(0)
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


if __name__ == '__main__':
    main()
