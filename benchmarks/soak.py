# SPDX-License-Identifier: Apache-2.0
"""Half an hour of two cameras at a rate near what the machine can do: `python -m benchmarks.soak`.

The node, and each camera, runs in a process of its own. At first the cameras are faster than the
node, which shows what it can do; from then on they share nine tenths of that. Now and then the
node's process is stopped for a moment, as a busy machine does, so that frames become overdue.

Writes soak.json and soak.png. Exits with 1 where something did not hold: a frame that is neither
answered nor counted, an answer that never arrived, a failed step, memory that grows (judged from
ten minutes on), threads or files that pile up, no overdue frame in spite of the stops, a process
that ended.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.soak_report import Sample, plot, report
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_ros.demo.demo import private_network

SIZES = {'front': (120, 160), 'rear': (96, 128)}  # height, width
FRAMES = 40  # of each recording, played in a loop


class Soak:
    """The processes, and what this one hears of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image

        self.options = options
        self.output = Path(options.output)
        self.processes: dict[str, subprocess.Popen] = {}
        self.samples: list[Sample] = []
        self.arrived: Counter[str] = Counter()
        self.stops = 0
        self.max_latency_s = 0.0
        self._cameras: dict[str, dict[str, float]] = {}
        rclpy.init(args=[])
        self._node = rclpy.create_node('soak')
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        for name in SIZES:
            self._node.create_subscription(
                Image,
                f'{name}/depth/image',
                partial(self._on_depth, name),
                QoSProfile(depth=100),
            )

    def _on_diagnostics(self, message) -> None:
        for status in message.status:
            name = status.name.split(': ')[-1]
            if name in SIZES:
                self._cameras[name] = numbers(status.values)

    def _on_depth(self, name: str, _) -> None:
        self.arrived[name] += 1

    def start(self, name: str, module: str, parameters: dict, *remaps: str) -> None:
        arguments = [w for k, v in parameters.items() for w in ('-p', f'{k}:={json.dumps(v)}')]
        log = (self.output / f'{name}.log').open('a')
        self.processes[name] = subprocess.Popen(
            [sys.executable, '-m', module, '--ros-args', *arguments, *remaps],
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def start_cameras(self, rate_hz: float) -> None:
        for name in SIZES:
            parameters = {'input': str(self.output / name), 'rate_hz': rate_hz}
            self.start(
                name, 'smoothdino_ros.demo.sample_camera', parameters, '-r', f'__ns:=/{name}'
            )

    def end_cameras(self) -> None:
        for name in SIZES:
            self.processes[name].send_signal(signal.SIGINT)
        for name in SIZES:
            self.processes.pop(name).wait(30)

    def watch(self, duration_s: float, *, stop_every_s: float = 0.0) -> None:
        """Take a sample each second, and stop the node now and then."""
        import rclpy

        start_s = now_s = time.monotonic()
        next_s, next_stop_s = start_s + 1, start_s + stop_every_s
        while now_s - start_s < duration_s:
            rclpy.spin_once(self._node, timeout_sec=0.1)
            now_s = time.monotonic()
            if stop_every_s and now_s >= next_stop_s:
                self._stop_for(2 * self.max_latency_s)
                next_stop_s += stop_every_s
            if now_s >= next_s:
                next_s += 1
                self._sample(now_s)

    def _stop_for(self, seconds: float) -> None:
        import rclpy

        node = self.processes['depth_node']
        node.send_signal(signal.SIGSTOP)
        try:
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                rclpy.spin_once(self._node, timeout_sec=0.1)
        finally:
            node.send_signal(signal.SIGCONT)
        self.stops += 1

    def _sample(self, now_s: float) -> None:
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f'{name} ended with {process.returncode}: see {name}.log')
        at = Path(f'/proc/{self.processes["depth_node"].pid}')
        status = dict(line.split(':', 1) for line in (at / 'status').read_text().splitlines())
        self.samples.append(
            Sample(
                at_s=now_s,
                private_mb=int(status['RssAnon'].split()[0]) / 1024,
                shared_mb=int(status['RssShmem'].split()[0]) / 1024,
                threads=int(status['Threads']),
                files=len(list((at / 'fd').iterdir())),
                cameras=dict(self._cameras),
            )
        )

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + 300
        while not condition():
            if time.monotonic() > deadline_s:
                raise RuntimeError(f'after five minutes {what}: see the logs in {self.output}')
            self.watch(1.0)

    def is_active(self) -> bool:
        return len(self._cameras) == len(SIZES)

    def is_playing(self) -> bool:
        return self.is_active() and all(c['output rate [Hz]'] for c in self._cameras.values())

    def set_max_latency(self) -> None:
        """Four times what an answer takes while cameras are too fast, in the running node."""
        import rclpy
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        latency_ms = max(one['latency p50 [ms]'] for one in self._cameras.values())
        self.max_latency_s = max(0.5, 0.004 * latency_ms)
        parameter = Parameter('max_latency_s', value=self.max_latency_s).to_parameter_msg()
        client = self._node.create_client(SetParameters, 'depth/set_parameters')
        client.wait_for_service(60)
        future = client.call_async(SetParameters.Request(parameters=[parameter]))
        rclpy.spin_until_future_complete(self._node, future, timeout_sec=60)
        if not future.done() or not future.result().results[0].successful:
            raise RuntimeError(f'the node does not take max_latency_s: {future.result()}')

    def answered_hz(self) -> float:
        return float(np.mean([one['output rate [Hz]'] for one in self._cameras.values()]))

    def close(self) -> None:
        import rclpy

        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        self._node.destroy_node()
        rclpy.try_shutdown()


def numbers(values) -> dict[str, float]:
    found = {}
    for one in values:
        try:
            found[one.key] = float(one.value)
        except ValueError:  # a text
            continue
    return found


def write_recordings(output: Path) -> None:
    """Write what each camera plays, a ride through a room, in a folder of its name."""
    for name, (height, width) in SIZES.items():
        (output / name).mkdir(parents=True, exist_ok=True)
        room = SampleRoom(1_000_003, height=height, width=width, focal_px=0.8 * width)
        for i in range(FRAMES):
            cv2.imwrite(str(output / name / f'{i:03}.png'), room.frame(i).rgb[..., ::-1])


def run(soak: Soak) -> dict:
    """Find out what the node can do, load it with a share of that, and give the report."""
    options = soak.options
    soak.start(
        'depth_node',
        'smoothdino_ros.depth_node',
        {
            'model': options.model,
            'device': options.device,
            'input_height': options.input_height,
            'cameras': list(SIZES),
        },
    )
    soak.wait_until(soak.is_active, 'the node is not active')
    print('What can the node do?', flush=True)
    soak.start_cameras(200.0)
    soak.wait_until(soak.is_playing, 'no depth has come')
    soak.watch(15.0)
    soak.set_max_latency()
    can_hz = soak.answered_hz()
    soak.end_cameras()
    soak.watch(2.0)
    rate_hz = options.share * can_hz
    print(f'{can_hz:.1f} Hz; {options.minutes:g} min at {rate_hz:.1f} Hz.', flush=True)
    soak.start_cameras(rate_hz)
    soak.watch(6.0)  # the rates are those of five seconds
    soak.wait_until(soak.is_playing, 'no depth has come')
    begun = len(soak.samples)
    soak.watch(60 * options.minutes, stop_every_s=options.stop_every_s)
    loaded = soak.samples[begun:]
    soak.end_cameras()
    soak.watch(3 + 2 * soak.max_latency_s)  # what is on its way arrives
    return report(
        options,
        soak.samples,
        loaded,
        arrived={name: soak.arrived[name] for name in SIZES},
        stops=soak.stops,
        max_latency_s=soak.max_latency_s,
        can_hz=can_hz,
        rate_hz=rate_hz,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='soak', description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=30.0)
    parser.add_argument(
        '--model', default='smoothdino-small', help='bundled, a directory or an id'
    )
    parser.add_argument('--device', default='auto')
    parser.add_argument('--input-height', type=int, default=0, help="the node's input_height")
    parser.add_argument('--share', type=float, default=0.9, help='of what the node can do')
    parser.add_argument('--stop-every-s', type=float, default=60.0, help='0: never')
    parser.add_argument('--output', default='soak_output', help='folder of the report and logs')
    options = parser.parse_args(argv)
    if options.minutes < 1:
        parser.error(f'--minutes: expected 1 or more, got {options.minutes:g}')
    output = Path(options.output)
    write_recordings(output)
    os.environ.update(private_network())
    soak = Soak(options)
    try:
        result = run(soak)
    finally:
        soak.close()
    (output / 'soak.json').write_text(
        json.dumps(result | {'samples': [asdict(one) for one in soak.samples]}) + '\n'
    )
    plot(soak.samples, list(SIZES), output / 'soak.png')
    print(json.dumps(result, indent=2))
    return 0 if all(result['held'].values()) else 1


if __name__ == '__main__':
    sys.exit(main())
