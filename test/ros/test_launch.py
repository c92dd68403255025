# SPDX-License-Identifier: Apache-2.0
"""The launch files, under the real launch, starting real processes."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from support.made_recordings import PERIOD_NS, START_NS, pictures, write_bag

pytest.importorskip('launch_ros', reason='launch_ros is not installed (it comes with apt)')
rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticArray
from launch import LaunchDescription
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from sensor_msgs.msg import CameraInfo, Image

from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_ros.demo.own_domain import own_domain
from support.discovery import ask
from support.ros_processes import stamp_ns

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# What `ros2 launch FILE name:=value ...` does.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

given = [tuple(one.split(':=', 1)) for one in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=given)])
)
sys.exit(service.run())
"""


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """A prefix in which ROS 2 finds the package: colcon's, or one that starts this tree."""
    if os.environ.get('SMOOTHDINO_INSTALL'):
        return Path(os.environ['SMOOTHDINO_INSTALL'])
    prefix = tmp_path_factory.mktemp('prefix')
    marker = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'smoothdino_ros'
    marker.parent.mkdir(parents=True)
    marker.touch()
    for module in ('depth_node', 'demo.sample_camera'):
        program = prefix / 'lib' / 'smoothdino_ros' / module.rpartition('.')[2]
        executable(program, '-m', f'smoothdino_ros.{module}')
    return prefix


def executable(path: Path, *arguments: object) -> None:
    """A program that runs Python with these arguments and then its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {" ".join(map(str, arguments))} "$@"\n')
    path.chmod(0o755)


@pytest.fixture
def observer(monkeypatch, installed):
    monkeypatch.setenv('ROS_DOMAIN_ID', own_domain())
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(installed), prepend=os.pathsep)
    modules = next(installed.glob('lib/python3*/site-packages'), ROOT)
    monkeypatch.setenv('PYTHONPATH', str(modules), prepend=os.pathsep)
    rclpy.init()
    node = rclpy.create_node('observer')
    yield node
    node.destroy_node()
    rclpy.shutdown()


class Launched:
    """A launch in a process of its own; leaving the block ends it as Ctrl-C does."""

    def __init__(self, log: Path, file: str, **arguments: object) -> None:
        given = [f'{name}:={value}' for name, value in arguments.items()]
        self.log = log
        with log.open('w') as out:
            self.process = subprocess.Popen(
                [sys.executable, '-c', LAUNCH, str(ROOT / 'launch' / file), *given],
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> 'Launched':
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is not None:
            return  # it has ended by itself
        os.killpg(self.process.pid, signal.SIGINT)  # a terminal sends it to all of them
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def state(node, name: str) -> str:
    return ask(node, GetState, f'{name}/get_state', GetState.Request()).current_state.label


def wait_for(node, condition, timeout_s: float = 180.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    return bool(condition())


@pytest.mark.parametrize('name', ['depth', 'demo', 'replay'])
def test_every_argument_is_described(name):
    description = runpy.run_path(str(ROOT / 'launch' / f'{name}.launch.py'))
    arguments = description['generate_launch_description']()
    assert isinstance(arguments, LaunchDescription)
    own = arguments.get_launch_arguments()
    assert {'model', 'device'} <= {one.name for one in own}
    for one in own:
        assert '.' in one.description
        assert len(one.description) > 20


def test_depth_launch(observer, tiny_model_dir, tmp_path):
    params_file = tmp_path / 'params.yaml'
    params_file.write_text(
        '/**:\n  ros__parameters:\n    model: somewhere/else\n    max_depth_m: 20\n'
        '    device: cpu\n    autostart: true\n'
    )
    arguments = {
        'image': '/camera/image_raw',
        'model': tiny_model_dir,
        'params_file': params_file,
        'namespace': 'robot',
        'use_sim_time': 'true',
        'log_level': 'warn',
    }
    with Launched(tmp_path / 'log', 'depth.launch.py', **arguments) as launched:
        active = wait_for(observer, lambda: state(observer, '/robot/depth') == 'active')
        assert active, launched.log.read_text()
        assert wait_for(observer, lambda: observer.count_subscribers('/camera/image_raw'))
        assert wait_for(observer, lambda: observer.count_subscribers('/camera/camera_info'))
        assert wait_for(observer, lambda: observer.count_publishers('/robot/depth/image'))
        names = ['model', 'max_depth_m', 'device', 'use_sim_time']
        request = GetParameters.Request(names=names)
        got = ask(observer, GetParameters, '/robot/depth/get_parameters', request).values
        values = [parameter_value_to_python(one) for one in got]
        assert values == [str(tiny_model_dir), 20, 'cpu', True]
    assert launched.process.returncode == 0
    said = launched.log.read_text()
    assert 'process has finished cleanly' in said
    assert 'failed to terminate' not in said
    assert 'Traceback' not in said
    assert 'Loaded' not in said  # that is of level info


def test_without_autostart_it_waits(observer, tmp_path):
    arguments = {'autostart': 'false', 'camera_info': '/elsewhere/info'}
    with Launched(tmp_path / 'log', 'depth.launch.py', **arguments):
        assert state(observer, '/depth') == 'unconfigured'


def test_demo_launch(observer, tiny_model_dir, tmp_path):
    received: list[Image] = []
    infos: list[CameraInfo] = []
    observer.create_subscription(Image, '/depth/image', received.append, 10)
    observer.create_subscription(CameraInfo, '/depth/camera_info', infos.append, 10)
    arguments = {'model': tiny_model_dir, 'rate_hz': 2, 'image': '/front/image_raw'}
    with Launched(tmp_path / 'log', 'demo.launch.py', **arguments) as launched:
        assert wait_for(observer, lambda: len(received) >= 2), launched.log.read_text()
        assert observer.count_publishers('/front/image_raw') == 1
        assert observer.count_publishers('/front/camera_info') == 1
        assert wait_for(observer, lambda: infos)
    assert received[0].encoding == '32FC1'
    assert launched.process.returncode == 0


@pytest.mark.parametrize(
    ('file', 'given', 'said'),
    [
        ('depth', {'params_file': '/nowhere'}, 'params_file: no such file: /nowhere'),
        ('replay', {'bag': '/nowhere', 'image': '/x'}, 'bag: no such file or folder: /nowhere'),
        ('demo', {'rate_hz': 'fast'}, "rate_hz: expected a number more than 0, got 'fast'"),
    ],
)
def test_an_argument_that_cannot_be_meant_ends_the_launch_before_anything_starts(
    observer, tmp_path, file, given, said
):
    with Launched(tmp_path / 'log', f'{file}.launch.py', **given) as launched:
        assert launched.process.wait(60) == 1
    words = launched.log.read_text()
    assert said in words
    assert 'process started' not in words
    assert 'Traceback' not in words


def test_the_demo_ends_when_its_camera_cannot_play(observer, tmp_path):
    arguments = {'input': '/nowhere', 'autostart': 'false'}
    with Launched(tmp_path / 'log', 'demo.launch.py', **arguments) as launched:
        assert launched.process.wait(60) == 1
    words = launched.log.read_text()
    assert '/nowhere' in words
    assert 'sample_camera-1 ended with exit code 1' in words


@pytest.fixture
def player(monkeypatch, tmp_path):
    """`ros2 bag play`: that of a ROS 2 installation, or what stands for it."""
    ros2 = shutil.which('ros2')
    if (
        ros2
        and subprocess.run([ros2, 'bag', 'play', '--help'], capture_output=True).returncode == 0
    ):
        return
    executable(tmp_path / 'bin' / 'ros2', ROOT / 'test' / 'support' / 'play_bag.py')
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'), prepend=os.pathsep)


def test_every_frame_of_a_bag_is_answered_and_the_launch_ends_with_it(
    observer, player, tiny_model_dir, tmp_path
):
    bag = write_bag(tmp_path / 'bag', pictures(12), 'sqlite3')
    received: list[Image] = []
    diagnostics: list[DiagnosticArray] = []
    observer.create_subscription(Image, '/depth/image', received.append, 50)
    observer.create_subscription(DiagnosticArray, '/diagnostics', diagnostics.append, 50)
    arguments = {
        'bag': bag,
        'image': '/cam/image_raw',
        'rate': 0.2,
        'model': tiny_model_dir,
        'device': 'cpu',
        'use_sim_time': 'false',
    }
    with Launched(tmp_path / 'log', 'replay.launch.py', **arguments) as launched:
        ended = wait_for(observer, lambda: launched.process.poll() is not None)
    assert ended, launched.log.read_text()
    wait_for(observer, lambda: len(received) == 12, 5.0)
    assert launched.process.returncode == 0, launched.log.read_text()
    assert [stamp_ns(one) for one in received] == [START_NS + i * PERIOD_NS for i in range(12)]
    assert stamp_ns(diagnostics[-1]) > START_NS + 10**9  # not in the bag's time, as was asked for


def test_a_player_that_fails_ends_the_launch(observer, player, tiny_model_dir, tmp_path):
    (tmp_path / 'bag').mkdir()  # without metadata
    arguments = {'bag': tmp_path / 'bag', 'image': '/cam/image_raw', 'model': tiny_model_dir}
    with Launched(tmp_path / 'log', 'replay.launch.py', **arguments) as launched:
        assert launched.process.wait(180) == 1
    assert 'player-2 ended with exit code' in launched.log.read_text()


def test_a_bag_that_loops_is_replayed_in_its_own_time_and_starts_afresh_each_time(
    observer, player, tiny_model_dir, tmp_path
):
    room = [SampleRoom(3, height=48, width=64).frame(3 * i).rgb for i in range(8)]
    bag = write_bag(tmp_path / 'bag', room, 'sqlite3')
    params_file = tmp_path / 'params.yaml'
    params_file.write_text(
        '/**:\n  ros__parameters:\n    max_depth_m: 1000\n    min_depth_m: 0\n    device: cpu\n'
        '    focal_correction: false\n'
    )
    received: list[Image] = []
    diagnostics: list[DiagnosticArray] = []
    observer.create_subscription(Image, '/depth/image', received.append, 50)
    observer.create_subscription(DiagnosticArray, '/diagnostics', diagnostics.append, 10)
    arguments = {
        'bag': bag,
        'image': '/cam/image_raw',
        'loop': 'true',
        'rate': 0.2,
        'model': tiny_model_dir,
        'params_file': params_file,
    }

    def laps() -> int:
        return 1 + sum(b < a for a, b in pairwise(map(stamp_ns, received)))

    with Launched(tmp_path / 'log', 'replay.launch.py', **arguments) as launched:
        assert wait_for(observer, lambda: laps() >= 3), launched.log.read_text()
        diagnostics.clear()
        assert wait_for(observer, lambda: diagnostics)
    assert 'Traceback' not in launched.log.read_text()

    stamps_ns = [stamp_ns(one) for one in received]
    assert set(stamps_ns) <= {START_NS + i * PERIOD_NS for i in range(8)}
    assert 0 <= stamp_ns(diagnostics[0]) - START_NS < 10**9  # the bag's time, years ago
    pipeline = DepthPipeline.from_pretrained(tiny_model_dir, device='cpu')
    resets = 0
    for i, message in enumerate(received):
        place = (stamps_ns[i] - START_NS) // PERIOD_NS
        depth_m = np.frombuffer(message.data, np.float32).reshape(48, 64)
        wanted = pipeline.step({'': CameraFrame(room[place], stamps_ns[i])})['']
        np.testing.assert_allclose(depth_m[depth_m > 0], wanted.depth_m[depth_m > 0], rtol=1e-3)
        if i and stamps_ns[i] < stamps_ns[i - 1]:
            resets += 1
            assert 'stamp went back' in wanted.reset
            pipeline_of_one = DepthPipeline.from_pretrained(tiny_model_dir, device='cpu')
            alone = pipeline_of_one.step({'': CameraFrame(room[place], 0)})[''].depth_m
            np.testing.assert_array_equal(wanted.depth_m, alone)
    assert resets >= 2
    camera = diagnostics[-1].status[1]
    values = {one.key: one.value for one in camera.values}
    assert int(values['resets']) >= 3
    assert 'stamp went back' in values['last reset']
