# SPDX-License-Identifier: Apache-2.0
"""How long `depth_node` takes to start, where that goes, and the memory that it holds then.

`python -m benchmarks.start` starts the node some times with a warm disk and takes the time, over
DDS, until it is active and until a first picture is answered; then it imports and loads the same
in a process of its own, step by step.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.machine import cpu_name
from smoothdino_ros.demo.demo import private_network

SIZE = (480, 640)
MEMORY = ('VmRSS', 'RssAnon', 'RssFile', 'VmHWM')  # all, private, of files, the most so far
WITHIN_S = 120.0


def started(model: str) -> dict[str, float]:
    """Seconds from the start of the process, and MB of memory after 20 answers."""
    import rclpy
    from lifecycle_msgs.msg import TransitionEvent
    from sensor_msgs.msg import Image

    node = rclpy.create_node('starter')
    states: list[str] = []
    answers: list[Image] = []

    def on_transition(event: Any) -> None:
        states.append(event.goal_state.label)

    def wait_for(condition: Callable[[], object], within_s: float = WITHIN_S) -> bool:
        deadline_s = time.monotonic() + within_s
        while not condition() and time.monotonic() < deadline_s:
            rclpy.spin_once(node, timeout_sec=0.01)
        return bool(condition())

    node.create_subscription(TransitionEvent, 'depth/transition_event', on_transition, 10)
    node.create_subscription(Image, 'depth/image', answers.append, 10)
    images = node.create_publisher(Image, 'image', 5)
    height, width = SIZE
    picture = Image(height=height, width=width, encoding='rgb8', step=3 * width)
    picture.data = np.random.default_rng(0).integers(0, 256, 3 * height * width, 'u1').tobytes()
    began_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, '-m', 'smoothdino_ros.depth_node', '--ros-args', '-p', f'model:={model}'],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        if not wait_for(lambda: 'active' in states):
            raise TimeoutError(f'expected an active node within {WITHIN_S:.0f} s, got {states}')
        figures = {'active, s': time.monotonic() - began_s}
        wait_for(images.get_subscription_count)
        for i in range(20):
            answers.clear()
            picture.header.stamp.sec = i
            images.publish(picture)
            while not wait_for(lambda: answers, 1.0):  # lost: one side knew the other already
                images.publish(picture)
            figures.setdefault('first answer, s', time.monotonic() - began_s)
        status = Path(f'/proc/{process.pid}/status').read_text()
        for name in MEMORY:
            figures[f'{name}, MB'] = int(re.findall(rf'{name}:\s+(\d+) kB', status)[0]) / 1000
        return figures
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        node.destroy_node()


def steps(model: str) -> None:
    """Print the seconds of each step of a start, in this process."""
    gc.disable()  # as the node does while it imports
    at_s = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal at_s
        now_s = time.perf_counter()
        print(f'| {name} | {now_s - at_s:.2f} |', flush=True)
        at_s = now_s

    import smoothdino_ros.depth_node

    lap('import of rclpy and the node')
    import torch  # noqa: F401

    lap('import of torch')
    import transformers  # noqa: F401

    lap('import of transformers')
    from smoothdino_model.pipeline import CameraFrame

    lap("import of transformers' models and of the rest")
    parameters = smoothdino_ros.parameters.NodeParameters(model=model)
    pipeline = smoothdino_ros.loading.load_pipeline(parameters)
    lap('weights, engine')
    pipeline.step({'': CameraFrame(np.zeros((*SIZE, 3), np.uint8), 0)})
    lap('first frame')


def main() -> None:
    parser = argparse.ArgumentParser(prog='start', description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='smoothdino-small')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--steps', action='store_true', help='only these, in this process')
    options = parser.parse_args()
    if options.steps:
        steps(options.model)
        return
    import rclpy

    os.environ.update(private_network())
    rclpy.init()
    rounds = [started(options.model) for _ in range(options.rounds + 1)][1:]  # a warm disk
    print(f'{cpu_name()}, {options.model}, {SIZE[1]}x{SIZE[0]}, {options.rounds} starts\n')
    print('| depth_node |  |\n|---|---|')
    for name in rounds[0]:
        print(f'| {name} | {median(one[name] for one in rounds):.1f} |')
    print('\n| step | s |\n|---|---|', flush=True)
    subprocess.run([sys.executable, '-m', 'benchmarks.start', '--steps', '--model', options.model])
    rclpy.shutdown()


if __name__ == '__main__':
    main()
