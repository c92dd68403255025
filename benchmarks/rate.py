# SPDX-License-Identifier: Apache-2.0
"""How many frames a second `depth_node` answers, points included, by `input_height`.

`python -m benchmarks.rate` starts a node for each height in turn, over real DDS at 640x480, with
the last frames and clouds subscribed to, and sends it one picture after the other, then thirty
a second. At its own height (0) the bundled model is to give 10 Hz on two quiet cores that multiply
bf16, 5 on others.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from sensor_msgs.msg import CameraInfo, PointCloud2

from benchmarks.busy import Figures, measured, node_command, processes
from benchmarks.machine import cpu_name
from benchmarks.node_latency import SIZE, Rig
from smoothdino_model.engines.choice import cpu_computes_in_bf16
from smoothdino_ros.demo.demo import private_network

CAMERA_HZ = 30.0


class PointsRig(Rig):
    """Takes the clouds as well, as bytes, and counts them."""

    def __init__(self, name: str) -> None:
        super().__init__([name])
        self.clouds = 0
        self._infos = self._node.create_publisher(CameraInfo, 'camera_info', 5)
        self._node.create_subscription(
            PointCloud2, f'{name}/depth/points', self._on_cloud, 5, raw=True
        )

    def _on_cloud(self, _: bytes) -> None:
        self.clouds += 1

    def calibrate(self) -> None:
        height, width = SIZE
        k = [519.0, 0.0, width / 2, 0.0, 519.0, height / 2, 0.0, 0.0, 1.0]
        self._infos.publish(CameraInfo(height=height, width=width, k=k))

    def rate_hz(self, name: str, seconds: float) -> float:
        """Give the clouds a second that come of a camera of 30 Hz."""
        began_s, before, sent = time.perf_counter(), self.clouds, 0
        while (now_s := time.perf_counter() - began_s) < seconds:
            if now_s * CAMERA_HZ >= sent:
                self.send(name)
                sent += 1
            self.spin(0.002)
        return (self.clouds - before) / seconds


def figures_at(height: int, parameters: list[str], seconds: float) -> Figures:
    name = f'at_{height}'
    command = node_command(name, f'input_height:={height}', *parameters)
    with processes([command], dict(os.environ)) as (process,):
        rig = PointsRig(name)
        try:
            rig.wait_for(name)
            while not rig.clouds:
                rig.calibrate()
                rig.answer(name)
            print(f'The node answers at {height}.', file=sys.stderr, flush=True)
            return measured(rig, name, process, seconds) | {'Hz': rig.rate_hz(name, seconds)}
        finally:
            rig.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog='rate', description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='smoothdino-small')
    parser.add_argument('--heights', type=int, nargs='+', default=[168, 0, 280])
    parser.add_argument('--seconds', type=float, default=8.0, help='of each of the two')
    parser.add_argument(
        '--parameters', nargs='*', default=[], metavar='NAME:=VALUE', help='of the node, besides'
    )
    options = parser.parse_args()
    parameters = [f'model:={options.model}', *options.parameters]
    os.environ.update(private_network())
    print(f'{cpu_name()}, {len(os.sched_getaffinity(0))} cores, {options.model}\n')
    print('| input_height | p50 ms | p99 ms | cpu ms | Hz |\n|---|---|---|---|---|')
    goal_hz = 10 if cpu_computes_in_bf16() and 'precision:=fp32' not in parameters else 5
    for height in options.heights:
        figures = figures_at(height, parameters, options.seconds)
        print(
            f'| {height} | ' + ' | '.join(f'{x:.1f}' for x in figures.values()) + ' |', flush=True
        )
        if height == 0:
            verdict = 'met' if figures['Hz'] >= goal_hz else 'not met'
            print(f'goal at 0: {goal_hz} Hz, {verdict}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    main()
