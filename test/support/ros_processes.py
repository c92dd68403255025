# SPDX-License-Identifier: Apache-2.0
"""ROS processes as others meet them, and a node that watches and calls them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from support.discovery import wait_until_known

ROOT = Path(__file__).parents[2]


class Process:
    """A Python process whose words are kept in a file."""

    def __init__(self, log: Path, *command: str) -> None:
        self._log = log
        paths = (os.environ.get('PYTHONPATH'), str(ROOT / 'test'))
        with log.open('w') as out:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def words(self) -> str:
        return self._log.read_text()

    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self, number: int = signal.SIGINT) -> int:
        if self.alive():
            self._process.send_signal(number)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


@contextmanager
def depth_node(log: Path, *arguments: str) -> Iterator[Process]:
    """A depth node in a process of its own, and without a traceback to its end, with code 0."""
    node = Process(log, '-m', 'smoothdino_ros.depth_node', '--ros-args', *arguments)
    try:
        yield node
    finally:
        code = node.end(signal.SIGTERM)
    assert code == 0, node.words()
    assert 'Traceback' not in node.words()


def camera(log: Path, *options: str) -> Process:
    return Process(log, '-m', 'support.camera_process', *options)


class Observer:
    """Another ROS node: what it received, and calls of the depth node's services."""

    def __init__(self, namespace: str = '', prefix: str = '') -> None:
        self.node = rclpy.create_node('observer', namespace=namespace)
        self.reliable: list[Image] = []
        self.best_effort: list[Image] = []
        self.infos: list[CameraInfo] = []
        self.diagnostics: list[DiagnosticArray] = []
        self._clients: dict = {}
        best_effort = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
        for kind, topic, received, qos in (
            (Image, f'{prefix}depth/image', self.reliable, 20),
            (Image, f'{prefix}depth/image', self.best_effort, best_effort),
            (CameraInfo, f'{prefix}depth/camera_info', self.infos, 20),
            (DiagnosticArray, '/diagnostics', self.diagnostics, 20),
        ):
            self.node.create_subscription(kind, topic, received.append, qos)

    def wait_for(self, condition, timeout_s: float = 20.0) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline:
            rclpy.spin_once(self.node, timeout_sec=0.05)
        return bool(condition())

    def call(self, kind, name: str, request):
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
            assert self._clients[name].wait_for_service(120.0), name
            self.wait_until_known()
        future = self._clients[name].call_async(request)
        # A node that loads its model answers afterwards: minutes on a busy machine.
        rclpy.spin_until_future_complete(self.node, future, timeout_sec=400.0)
        assert future.done(), name
        return future.result()

    def wait_until_known(self) -> None:
        """Until the node's process has discovered all that was made here."""
        wait_until_known(self.node)

    def state(self) -> str:
        return self.call(GetState, 'depth/get_state', GetState.Request()).current_state.label

    def transition(self, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return self.call(ChangeState, 'depth/change_state', request).success

    def set(self, **values) -> str:
        """The reason for which a value was refused, else empty."""
        changes = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParameters.Request(parameters=changes)
        results = self.call(SetParameters, 'depth/set_parameters', request).results
        return ' '.join(one.reason for one in results if not one.successful)

    def parameter_type(self, name: str) -> int:
        """As declared, which is that of its value."""
        request = DescribeParameters.Request(names=[name])
        (declared,) = self.call(
            DescribeParameters, 'depth/describe_parameters', request
        ).descriptors
        request = GetParameters.Request(names=[name])
        (value,) = self.call(GetParameters, 'depth/get_parameters', request).values
        assert (declared.type, declared.dynamic_typing) == (value.type, False)
        return value.type

    def play(self, log: Path, *options: str) -> None:
        """Run the camera to its end, and take all that it has seen as well."""
        for received in (self.reliable, self.best_effort, self.infos):
            received.clear()
        one = camera(log, *options)
        assert self.wait_for(lambda: not one.alive(), 200), one.words()
        assert one.end() == 0, one.words()
        seen = int(one.words().split()[-1])
        assert self.wait_for(lambda: min(len(self.reliable), len(self.infos)) >= seen)


def stamp_ns(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def depth_m(message: Image) -> np.ndarray:
    assert message.encoding == '32FC1'
    assert not message.is_bigendian
    return np.frombuffer(message.data, '<f4').reshape(message.height, message.width)
