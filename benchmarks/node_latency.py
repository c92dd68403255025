# SPDX-License-Identifier: Apache-2.0
"""What the node costs on top of its network, beside a node written by hand.

`python -m benchmarks.node_latency` runs three processes, over real DDS at 640x480: this one, which
publishes pictures and takes the depth, `depth_node`, and a minimal rclpy node that calls the plain
per-frame network of the same model in its callback. Prints, and with --json writes:

- added: from the node's callback to the end of its publishing, less the pipeline's own time, and
  the same in processor time of the node, which others on the machine do not lengthen;
- unloaded: from publish to depth received here, one picture at a time, the two nodes in turn;
- loaded: the same while pictures come faster than either node can answer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import cpu_name
from smoothdino_ros.demo.demo import private_network

SIZE = (480, 640)
GOAL_MS = {'p50': 3.0, 'p99': 8.0}  # of what the node adds
NODES = ('depth_node', 'minimal')


def minimal(model: str) -> None:
    """The node that people write: default QoS, and everything in the callback."""
    import rclpy
    from sensor_msgs.msg import Image

    from smoothdino_model.weights.checkpoint import load_model

    backbone = load_model(model, adapter='none').backbone.eval()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    backbone.to(device)
    rclpy.init(args=[])
    node = rclpy.create_node('minimal')
    publisher = node.create_publisher(Image, 'minimal/depth/image', 10)

    @torch.inference_mode()
    def on_image(message: Image) -> None:
        rgb = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        depth_m = backbone(torch.from_numpy(rgb.copy())[None].to(device))[0].cpu().numpy()
        answer = Image(header=message.header, height=message.height, width=message.width)
        answer.encoding, answer.step = '32FC1', message.width * 4
        answer.data = depth_m.tobytes()
        publisher.publish(answer)

    node.create_subscription(Image, 'minimal/image', on_image, 10)
    with contextlib.suppress(KeyboardInterrupt):
        rclpy.spin(node)


def timed_depth_node(model: str, times_file: str) -> int:
    """`depth_node`, its pipeline's steps timed from outside; it writes both at its end."""
    from smoothdino_model.pipeline import DepthPipeline
    from smoothdino_ros import depth_node
    from smoothdino_ros.camera import Camera
    from smoothdino_ros.inference_worker import InferenceWorker

    steps_s: list[float] = []
    offered_s = [0.0]  # in processor time, as all that follow
    step_s = [0.0]
    added_s: list[float] = []
    step, stop = DepthPipeline.step, InferenceWorker.stop
    offer, publish = InferenceWorker.offer, Camera.publish

    def offered(self, *args, **kwargs) -> None:
        offered_s[0] = time.process_time()
        offer(self, *args, **kwargs)

    def timed(self, frames):
        start_s, start_processor_s = time.perf_counter(), time.process_time()
        results = step(self, frames)
        steps_s.append(time.perf_counter() - start_s)
        step_s[0] = time.process_time() - start_processor_s
        return results

    def published(self, *args, **kwargs) -> None:
        publish(self, *args, **kwargs)
        added_s.append(time.process_time() - offered_s[0] - step_s[0])

    def stopped(self) -> None:
        stop(self)
        latencies_s = [s for one in self.counts().values() for s in one.latencies_s]
        # The worker remembers the latest ones; one camera, so in the order of the steps.
        latest = slice(-len(latencies_s), None)
        times_s = zip(latencies_s, steps_s[latest], added_s[latest], strict=True)
        Path(times_file).write_text(json.dumps(list(times_s)))

    DepthPipeline.step, InferenceWorker.stop = timed, stopped  # type: ignore[method-assign]
    InferenceWorker.offer, Camera.publish = offered, published  # type: ignore[method-assign]
    arguments = ['-p', f'model:={model}', '-p', 'max_gap_s:=1000.0']
    remaps = [w for t in ('image', 'depth/image') for w in ('-r', f'{t}:=depth_node/{t}')]
    return depth_node.main(['--ros-args', *arguments, *remaps])


class Rig:
    """Publishes pictures to nodes and notes when their depth arrives."""

    def __init__(self, names: Sequence[str]) -> None:
        import rclpy
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image

        rclpy.init(args=[])
        self._node = rclpy.create_node('rig')
        self._sent_s: dict[tuple[str, int], float] = {}
        self.latencies_ms: dict[str, list[float]] = {name: [] for name in names}
        rgb = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        self._picture = Image(height=SIZE[0], width=SIZE[1], encoding='rgb8', step=SIZE[1] * 3)
        self._picture.data = rgb.tobytes()
        self._number = 0
        self._publishers = {}
        for name in names:
            self._publishers[name] = self._node.create_publisher(
                Image, f'{name}/image', QoSProfile(depth=10)
            )
            self._node.create_subscription(
                Image,
                f'{name}/depth/image',
                partial(self._on_depth, name),
                QoSProfile(depth=100),
            )

    def _on_depth(self, name: str, answer) -> None:
        sent_s = self._sent_s.pop((name, answer.header.stamp.nanosec), None)
        if sent_s is not None:
            self.latencies_ms[name].append(1000 * (time.perf_counter() - sent_s))

    def send(self, name: str) -> None:
        self._number += 1
        self._picture.header.stamp.nanosec = self._number
        self._sent_s[name, self._number] = time.perf_counter()
        self._publishers[name].publish(self._picture)

    def spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        import rclpy

        end_s = time.perf_counter() + seconds
        while not until() and (left_s := end_s - time.perf_counter()) > 0:
            rclpy.spin_once(self._node, timeout_sec=min(left_s, 0.1))
        return until()

    def answer(self, name: str) -> bool:
        """Send a picture and wait for its depth, which DDS may lose on a busy machine."""
        before = len(self.latencies_ms[name])
        self.send(name)
        return self.spin(10.0, lambda: len(self.latencies_ms[name]) > before)

    def wait_for(self, name: str) -> None:
        deadline_s = time.perf_counter() + 300
        while not (self._publishers[name].get_subscription_count() and self.answer(name)):
            if time.perf_counter() > deadline_s:
                raise RuntimeError(f'after five minutes {name} has not answered')
            self.spin(0.5)

    def taken(self, name: str) -> list[float]:
        """The latencies since the last call."""
        latencies_ms, self.latencies_ms[name] = self.latencies_ms[name], []
        return latencies_ms

    def close(self) -> None:
        import rclpy

        self._node.destroy_node()
        rclpy.try_shutdown()


def unloaded(rig: Rig, rounds: int) -> dict[str, list[float]]:
    """One picture at a time; which node goes first is drawn for each round."""
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(NODES, len(NODES)):
            rig.answer(name)
    return {name: rig.taken(name) for name in NODES}


def loaded(rig: Rig, period_s: float, pictures: int) -> dict[str, list[float]]:
    """Pictures at a third of the time that an answer takes, one node after the other."""
    found = {}
    for name in NODES:
        for _ in range(pictures):
            rig.send(name)
            rig.spin(period_s / 3)
        rig.spin(12 * period_s + 1.0)  # ten may still be queued
        found[name] = rig.taken(name)
    return found


def summary(values_ms: list[float]) -> dict[str, float]:
    if not values_ms:
        return {'n': 0}
    p50, p99 = np.percentile(values_ms, [50, 99])
    return {'n': len(values_ms), 'p50': round(p50, 2), 'p99': round(p99, 2)}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Run both nodes, unloaded and then loaded, and give the report."""
    os.environ.update(private_network())
    with tempfile.TemporaryDirectory() as directory:
        times = Path(directory) / 'times.json'
        command = [sys.executable, '-m', 'benchmarks.node_latency', '--model', options.model]
        nodes = {
            name: subprocess.Popen([*command, '--be', name, '--times', str(times)])
            for name in NODES
        }
        rig = Rig(NODES)
        try:
            for name in NODES:
                rig.wait_for(name)
                for _ in range(3):  # the first steps are slower
                    rig.answer(name)
                rig.taken(name)
            alone = unloaded(rig, options.rounds)
            nodes['depth_node'].send_signal(signal.SIGINT)
            nodes['depth_node'].wait(60)
            answers_s = json.loads(times.read_text())[-len(alone['depth_node']) :]
            nodes['depth_node'] = subprocess.Popen(
                [*command, '--be', 'depth_node', '--times', str(times)]
            )
            rig.wait_for('depth_node')
            for name in NODES:
                rig.taken(name)
            period_s = float(np.median(alone['depth_node'])) / 1000
            crowded = loaded(rig, period_s, options.pictures)
        finally:
            for process in nodes.values():
                process.send_signal(signal.SIGINT)
            for process in nodes.values():
                process.wait(60)
            rig.close()
    return report(options, answers_s, alone, crowded, period_s)


def report(
    options: argparse.Namespace,
    answers_s: list[list[float]],
    alone: dict[str, list[float]],
    crowded: dict[str, list[float]],
    period_s: float,
) -> dict[str, Any]:
    """Sum up the times in seconds of the node's answers, and the latencies in milliseconds.

    An answer is (from callback to published, the step, processor time of all but the step).
    """
    steps_s = [step_s for _, step_s, _ in answers_s]
    return {
        'machine': {
            'cpu': cpu_name(),
            'cores': len(os.sched_getaffinity(0)),
            'load': round(os.getloadavg()[0], 1),
            'torch': torch.__version__,
        },
        'model': options.model,
        'size': f'{SIZE[1]}x{SIZE[0]}',
        'pipeline [ms]': summary([1000 * one for one in steps_s]),
        'added [ms]': summary([1000 * (a - b) for a, b, _ in answers_s]) | {'goal': GOAL_MS},
        'added, processor time [ms]': summary([1000 * one for *_, one in answers_s]),
        'unloaded [ms]': {name: summary(alone[name]) for name in NODES},
        'loaded [ms]': {name: summary(crowded[name]) for name in NODES},
        'pictures while loaded': {
            'sent to each': options.pictures,
            'every [ms]': period_s / 0.003,
        },
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='node_latency', description=__doc__.splitlines()[0])
    parser.add_argument(
        '--model', default='smoothdino-small', help='bundled, a directory or an id'
    )
    parser.add_argument('--rounds', type=int, default=100, help='pictures to each node, unloaded')
    parser.add_argument('--pictures', type=int, default=60, help='to each node, loaded')
    parser.add_argument('--json', help='file for the figures')
    parser.add_argument('--be', choices=NODES, help=argparse.SUPPRESS)
    parser.add_argument('--times', help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.be == 'minimal':
        minimal(options.model)
        return 0
    if options.be == 'depth_node':
        return timed_depth_node(options.model, options.times)
    result = measured(options)
    print(json.dumps(result, indent=2))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
