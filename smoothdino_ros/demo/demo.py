# SPDX-License-Identifier: Apache-2.0
"""The whole job on one machine: a camera process, the depth node and a viewer, over ROS 2.

This process only owns the other three: it ends with the viewer's result, and on every other way
out (Ctrl-C at any moment, a process that dies) it ends them all. It imports no ROS itself, so that
its signal handlers are in place before anything that takes time.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from smoothdino_ros.demo.own_domain import own_domain
from smoothdino_ros.fast_dds import profile_environment

UNSEEN_SEED = 1_000_003  # of a room; no training seed is this high
PATIENCE_S = (5.0, 2.0)  # after SIGINT, after SIGTERM; then SIGKILL
LAST_LINES = 15
NO_DEPTH = 3  # the viewer's exit code when the depth node does not answer
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Child:
    """A process of the demo; what it says, but for the viewer's stdout, goes to its log."""

    name: str
    process: subprocess.Popen
    log: Path

    def last_lines(self) -> str:
        lines = self.log.read_text(errors='replace').splitlines()[-LAST_LINES:]
        return '\n'.join(f'    {line}' for line in lines) or '    (it said nothing)'


def main(argv: list[str] | None = None) -> int:
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A note instead of an exception: none can fall between a start and its bookkeeping.
        signal.signal(number, lambda number, _: signals.append(number))
    options = _parse(argv)
    output = Path(options.output).absolute()
    output.mkdir(parents=True, exist_ok=True)
    environment = private_network()
    print(
        f'Starting a camera, the depth node ({options.model}) and a viewer, '
        f'ROS_DOMAIN_ID={environment["ROS_DOMAIN_ID"]}; their logs: {output}',
        flush=True,
    )
    children: list[Child] = []
    try:
        for name, (module, arguments) in commands(options, output).items():
            if not signals:
                children.append(_start(name, module, arguments, output, environment))
        while not signals:
            for child in reversed(children):
                code = child.process.poll()
                if code is not None:
                    return _report(child, code, children)
            time.sleep(0.05)
        print('\nStopping.', flush=True)
        return 128 + signals[0]
    finally:
        _stop(children)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='demo', description=__doc__.splitlines()[0])
    parser.add_argument('--input', help='a folder of images, a video or a bag instead of a room')
    parser.add_argument('--topic', default='', help='image topic of a bag')
    parser.add_argument('--seed', type=int, default=UNSEEN_SEED, help='which room')
    parser.add_argument(
        '--model', default='smoothdino-small', help='bundled, a directory or an id'
    )
    parser.add_argument('--device', default='auto')
    parser.add_argument('--frames', type=int, default=75, help='depth images to wait for')
    parser.add_argument('--rate', type=float, default=5.0, help='frames per second of the camera')
    parser.add_argument('--output', default='demo_output', help='folder of the picture and logs')
    parser.add_argument('--viewer', choices=('line', 'rerun'), default='line')
    options = parser.parse_args(argv)
    if options.frames < 2:
        parser.error(f'--frames: expected 2 or more, got {options.frames}')
    if options.input:
        options.input = os.path.abspath(options.input)
        if not os.path.exists(options.input):
            parser.error(f'--input: no such file or folder: {options.input}')
    return options


def commands(options: argparse.Namespace, output: Path) -> dict[str, tuple[str, list[str]]]:
    """Module and arguments of each process, in the order of starting."""
    camera = {
        'input': options.input or '',
        'topic': options.topic,
        'seed': options.seed,
        'width': 320,  # all that the bundled model looks at, and a quarter of the work to render
        'height': 240,
        'rate_hz': options.rate,
    }
    node = {
        'model': options.model,
        'device': options.device,
        'autostart': True,
        # Best effort, right on a robot, loses most pictures of this size on a busy little machine.
        'qos_overrides./image.subscription.reliability': 'reliable',
    }
    viewer = {
        'model': options.model,
        'device': options.device,
        'frames': options.frames,
        'output': output,
        'viewer': options.viewer,
    }
    return {
        'camera': ('smoothdino_ros.demo.sample_camera', _ros_arguments(camera)),
        'depth_node': ('smoothdino_ros.depth_node', _ros_arguments(node)),
        'viewer': (
            'smoothdino_ros.demo.viewer',
            [f'--{name}={value}' for name, value in viewer.items()],
        ),
    }


def _ros_arguments(parameters: dict[str, object]) -> list[str]:
    # JSON is YAML: quoted, a file named 1 or yes stays a text
    pairs = [f'{name}:={json.dumps(value)}' for name, value in parameters.items()]
    return ['--ros-args', *(word for pair in pairs for word in ('-p', pair))]


def private_network() -> dict[str, str]:
    """An environment in which the demo meets no robot and no second demo."""
    private = {
        'ROS_DOMAIN_ID': own_domain(),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    }
    if os.environ.get('ROS_DISTRO') == 'humble':
        private['ROS_LOCALHOST_ONLY'] = '1'  # its name before Iron
    return {**os.environ, **profile_environment(), **private}


def _start(
    name: str, module: str, arguments: list[str], output: Path, environment: dict[str, str]
) -> Child:
    log = output / f'{name}.log'
    with log.open('w') as stream:
        process = subprocess.Popen(
            [sys.executable, '-m', module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=None if name == 'viewer' else stream,
            stderr=stream,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C reaches this process alone
            preexec_fn=_die_with_parent if sys.platform == 'linux' else None,
        )
    return Child(name, process, log)


def _die_with_parent() -> None:
    """In the child: end with the demo even where that is killed without a word."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _report(child: Child, code: int, children: list[Child]) -> int:
    """The demo's exit code after a child ended: 0 only where it is a contented viewer."""
    if child.name == 'viewer' and code == 0:
        return 0
    how = f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
    print(f'\nThe {child.name} process ended with {how}.', file=sys.stderr)
    guilty = (
        ['viewer', 'depth_node'] if (child.name, code) == ('viewer', NO_DEPTH) else [child.name]
    )
    for other in children:
        if other.name in guilty:
            print(f'Last lines of {other.log}:\n{other.last_lines()}', file=sys.stderr)
    return 1


def _stop(children: list[Child]) -> None:
    """End every process group: asked first, then told, then killed. Takes at most 8 s."""
    for number, patience_s in zip((signal.SIGINT, signal.SIGTERM), PATIENCE_S, strict=True):
        running = [child for child in children if child.process.poll() is None]
        for child in running:
            _signal_group(child, number)
        deadline_s = time.monotonic() + patience_s
        while running and time.monotonic() < deadline_s:
            running = [child for child in running if child.process.poll() is None]
            time.sleep(0.02)
    for child in children:
        _signal_group(child, signal.SIGKILL)  # and whatever a child left in its group
        child.process.wait()


def _signal_group(child: Child, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of it may have ended
        os.killpg(child.process.pid, number)


if __name__ == '__main__':
    sys.exit(main())
