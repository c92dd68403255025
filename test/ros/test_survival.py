# SPDX-License-Identifier: Apache-2.0
"""What happens to a node in weeks on a robot: cameras die, clocks jump, memory runs out.

SMOOTHDINO_SOAK=1 runs 50 cycles of the lifecycle instead of a few.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Log
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from support.camera_process import camera_info, picture
from support.node_in_this_process import GOOD, InThisProcess, good, outcomes
from support.ros_processes import ROOT, Observer, Process, depth_m, stamp_ns

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]
SOAK = bool(os.environ.get('SMOOTHDINO_SOAK'))
NODE = ('-m', 'smoothdino_ros.depth_node', '--ros-args')
PERIOD_NS = 33_333_333


class Camera:
    """A publisher of single pictures, and the node's answers to them."""

    def __init__(self, node, observer: Observer) -> None:
        self._node, self._observer = node, observer
        self._images = observer.node.create_publisher(Image, 'image', QoSProfile(depth=5))
        self._infos = observer.node.create_publisher(CameraInfo, 'camera_info', 5)

    def answered(self, rgb: np.ndarray, at_ns: int, *, within_s: float = 60.0) -> bool:
        """Whether the node answers this picture; it is shown again where DDS lost it."""
        header = Header(frame_id='camera', stamp=Time(sec=at_ns // 10**9, nanosec=at_ns % 10**9))
        self._observer.reliable.clear()
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self._images.get_subscription_count():
                self._infos.publish(camera_info(rgb))
                self._images.publish(picture(Image, rgb, header))
            if self._observer.wait_for(
                lambda: any(stamp_ns(one) == at_ns for one in self._observer.reliable), 2.0
            ):
                return True
            assert self._node.alive(), self._node.words()
        return False


@pytest.fixture(scope='module')
def model(tiny_model_dir) -> tuple[str, ...]:
    return ('-p', f'model:={tiny_model_dir}', '-p', 'max_depth_m:=1000')


@pytest.fixture(scope='module')
def node(model, tmp_path_factory):
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    process = Process(log, *NODE, *model, '-p', 'diagnostics_period_s:=0.2')
    yield process
    assert process.end(signal.SIGTERM) == 0, process.words()
    assert 'Traceback' not in process.words()


@pytest.fixture(scope='module')
def observer(node, dds):
    one = Observer()
    assert one.wait_for(lambda: one.diagnostics, 120), node.words()  # loaded, it spins
    assert one.state() == 'active', node.words()
    yield one
    one.node.destroy_node()


@pytest.fixture(scope='module')
def frames(tmp_path_factory) -> dict[str, np.ndarray]:
    """Two recordings of different sizes, by the names of their files."""
    directory = tmp_path_factory.mktemp('frames')
    made = {}
    for name, (height, width) in {'narrow': (28, 42), 'wide': (42, 84)}.items():
        random = np.random.default_rng(height)
        made[str(directory / f'{name}.npy')] = random.integers(
            0, 256, (4, height, width, 3), dtype=np.uint8
        )
    for path, array in made.items():
        np.save(path, array)
    return made


def latest(observer: Observer, node: str = 'depth') -> tuple[DiagnosticStatus, dict[str, str]]:
    """The status of a node's only camera, as it is now."""
    observer.diagnostics.clear()
    assert observer.wait_for(lambda: len(diagnosed(observer, node)) >= 2)
    status = diagnosed(observer, node)[-1].status[-1]
    return status, {one.key: one.value for one in status.values}


def diagnosed(observer: Observer, node: str) -> list[DiagnosticArray]:
    return [one for one in observer.diagnostics if one.status[0].name == f'{node}: node']


def identity_holds(values: dict[str, str]) -> bool:
    """Each received image is in one of the outcomes; nothing waits once the cameras are quiet."""
    names = ('unwanted', 'dropped', 'overdue', 'rejected', 'failed', 'answered')
    return int(values['received']) == sum(int(values.get(name, 0)) for name in names)


def first_depth(model_dir, rgb: np.ndarray, *, focal: float | None = None) -> np.ndarray:
    """Depth of a frame that no other went before, in the range of the node."""
    pipeline = DepthPipeline.from_pretrained(model_dir)
    depth = pipeline.step({'': CameraFrame(rgb, 0, focal=focal)})[''].depth_m
    return np.where(depth < 0.1, -np.inf, depth)


def test_a_killed_camera_comes_back(node, observer, frames, tiny_model_dir, tmp_path):
    path = next(iter(frames))
    camera = Process(tmp_path / '1', 'test/support/camera_process.py', path, '--laps', '100000')
    assert observer.wait_for(lambda: len(observer.reliable) >= 6, 120), node.words()
    camera.end(signal.SIGKILL)
    assert observer.wait_for(lambda: latest(observer)[0].level == DiagnosticStatus.STALE, 30), (
        'a dead camera does not show'
    )
    assert identity_holds(latest(observer)[1])

    observer.play(tmp_path / '2', path, '--laps', '2')  # its stamps start where they did before
    assert len(observer.reliable) == 8
    for first in (0, 4):  # the second lap is what a looping bag looks like
        np.testing.assert_allclose(
            depth_m(observer.reliable[first]),
            first_depth(tiny_model_dir, frames[path][0], focal=500 / frames[path].shape[2]),
            rtol=1e-4,
            atol=1e-4,
        )
    status, values = latest(observer)
    assert status.level == DiagnosticStatus.OK
    assert values['last reset'].startswith('stamp went back')
    assert identity_holds(values)


def test_two_publishers_on_one_topic(node, observer, frames, tiny_model_dir, tmp_path):
    resets = int(latest(observer)[1]['resets'])
    observer.reliable.clear()
    cameras, stamps = [], {}
    for i, (path, pictures) in enumerate(frames.items()):
        start_ns = (i + 1) * 1000 * 10**9
        stamps |= {start_ns + k * PERIOD_NS: rgb for k, rgb in enumerate(pictures)}
        options = ('--start-ns', str(start_ns), '--laps', '4', '--answer-within-s', '1')
        camera = ('test/support/camera_process.py', path, *options)
        cameras.append(Process(tmp_path / str(i), *camera))
    assert observer.wait_for(lambda: not any(one.alive() for one in cameras), 120)
    observer.wait_for(lambda: False, 0.3)
    answers = list(observer.reliable)
    assert all(one.end() == 0 for one in cameras)
    assert len(answers) >= 16
    before = None
    changes = 0
    for answer in answers:
        rgb = stamps[stamp_ns(answer)]
        assert (answer.height, answer.width) == rgb.shape[:2]
        if before is not None and before != rgb.shape:
            changes += 1
            plain = first_depth(tiny_model_dir, rgb, focal=500 / rgb.shape[1])
            np.testing.assert_allclose(depth_m(answer), plain, rtol=1e-4, atol=1e-4)
        before = rgb.shape
    _, values = latest(observer)
    assert identity_holds(values)
    assert int(values['failed']) == 0
    assert changes
    assert int(values['resets']) - resets >= changes


def memory_threads_files(process: Process) -> tuple[float, int, int]:
    """Resident MB, threads and open files of a process."""
    at = Path(f'/proc/{process._process.pid}')
    status = dict(line.split(':', 1) for line in (at / 'status').read_text().splitlines())
    files = len(list((at / 'fd').iterdir()))
    return int(status['VmRSS'].split()[0]) / 1024, int(status['Threads']), files


def test_lifecycle_cycles_leave_nothing_behind(node, observer):
    camera = Camera(node, observer)
    cycles, warm_up = (50, 10) if SOAK else (8, 3)
    used = []
    for i in range(cycles):
        for label in ('deactivate', 'cleanup', 'configure', 'activate'):
            assert observer.transition(label), node.words()
        assert camera.answered(GOOD, (i + 1) * 10**9)
        used.append(memory_threads_files(node))
    memory_mb, threads, files = zip(*used[warm_up - 1 :], strict=True)
    assert len(set(threads)) == 1, threads
    assert len(set(files)) == 1, files
    growth_mb = np.polyfit(range(len(memory_mb)), memory_mb, 1)[0]
    print(f'{cycles} cycles: {growth_mb * 1024:.0f} kB a cycle, {memory_mb[-1]:.0f} MB')
    assert growth_mb < (0.1 if SOAK else 1.0), memory_mb  # one model's weights are 0.3 MB


def test_a_machine_out_of_memory_drops_the_frame_and_says_so(node, observer):
    """Here, the address space of the process; a GPU's memory ends in the same way."""
    import resource

    camera = Camera(node, observer)
    assert camera.answered(GOOD, 100 * 10**9)
    _, before = latest(observer)
    pid = node._process.pid
    size = int(Path(f'/proc/{pid}/statm').read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + 150 * 2**20, resource.RLIM_INFINITY))
    try:
        large, stamp_s = np.zeros((1600, 2000, 3), np.uint8), 101
        while int(latest(observer)[1]['failed']) == int(before['failed']):
            assert stamp_s < 131, (latest(observer), node.words()[-500:])
            # 10 MB in one message may be lost on the way, and is sent again then.
            assert not camera.answered(large, stamp_s * 10**9, within_s=2)
            stamp_s += 1
        _, values = latest(observer)
        assert 'memory' in values['last failure'], values['last failure']
        assert 'Dropped an image' in node.words()
        assert camera.answered(GOOD, 200 * 10**9)
    finally:
        infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(pid, resource.RLIMIT_AS, infinite)
    assert identity_holds(latest(observer)[1])


def test_a_step_out_of_device_memory_drops_its_batch(tiny_model_dir, dds, monkeypatch):
    step, fail = DepthPipeline.step, []

    def full(self, frames):
        if fail:
            raise torch.OutOfMemoryError(fail.pop())
        return step(self, frames)

    monkeypatch.setattr(DepthPipeline, 'step', full)
    here = InThisProcess(tiny_model_dir, 'raw')
    try:
        assert here.send(good(Image, 10**9)) == 'answered'
        fail.append('CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...')
        assert here.send(good(Image, 10**9 + 900_000_000)) == 'failed'
        expected = 'OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.'
        assert here.counts().last_failure == expected
        # The dropped frame bridges the gap of more than max_gap_s: the state is as before it.
        here.viewer.reliable.clear()
        assert here.send(good(Image, 10**9 + 1_800_000_000)) == 'answered'
        assert here.viewer.wait_for(
            lambda: here.viewer.reliable and stamp_ns(here.viewer.reliable[-1]) == 2_800_000_000
        )
        plain = first_depth(tiny_model_dir, GOOD)
        assert not np.allclose(depth_m(here.viewer.reliable[-1]), plain, atol=1e-3)
        assert sum(outcomes(here.counts()).values()) == here.counts().received == 3
    finally:
        here.close()


# A process of which everything is known: its environment, its clock and its network.


@pytest.fixture(scope='module')
def secretive(model, tmp_path_factory, dds):
    """A node under simulated time in an environment with secrets, its model at first broken."""
    home = tmp_path_factory.mktemp('home-of-nobody')
    snapshot = home / '.cache/huggingface/hub/models--nobody--broken/snapshots/abc'
    snapshot.mkdir(parents=True)
    (snapshot / 'config.json').write_text('no configuration')
    (snapshot / 'model.safetensors').write_bytes(b'no weights')
    (snapshot.parents[1] / 'refs').mkdir()
    (snapshot.parents[1] / 'refs' / 'main').write_text('abc')
    secrets = {'HF_TOKEN': 'hf_swordfish', 'ROBOT_PASSWORD': 'opensesame', 'HOME': str(home)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            patch.setenv(name, value)
        for name in ('HF_HOME', 'HF_HUB_CACHE', 'XDG_CACHE_HOME'):
            patch.delenv(name, raising=False)
        process = Process(
            tmp_path_factory.mktemp('node') / 'log.txt',
            *(*NODE, *model, '-p', 'model:=nobody/broken', '-p', 'use_sim_time:=true'),
            *('-r', '__ns:=/quiet', '-p', 'diagnostics_period_s:=0.2'),
        )
    yield process, list(secrets.values())
    assert process.end(signal.SIGTERM) == 0, process.words()
    assert 'Traceback' not in process.words()


def test_nothing_said_reveals_the_environment(secretive, tiny_model_dir):
    node, secrets = secretive
    observer, said = Observer('/quiet'), []
    observer.node.create_subscription(Log, '/rosout', lambda log: said.append(log.msg), 100)
    try:
        assert observer.wait_for(lambda: 'Cannot configure' in node.words(), 120), node.words()
        assert observer.state() == 'unconfigured'
        assert observer.wait_for(lambda: diagnosed(observer, 'quiet/depth'))
        assert not observer.transition('configure')
        observer.set(device='cuda:77')
        assert not observer.transition('configure')
        home = Path(secrets[-1])
        observer.set(device='cpu', model=str(home / 'absent'))
        assert not observer.transition('configure')
        observer.set(model='smoothdino-small', adapter=str(home / 'absent.pth'))
        assert not observer.transition('configure')
        (home / 'model').symlink_to(tiny_model_dir)
        observer.set(model=str(home / 'model'), adapter='')
        assert observer.transition('configure'), node.words()
        assert observer.transition('activate')
        for message in ({'encoding': '$HF_TOKEN', 'data': b'x'}, {'encoding': '~'}):
            images = observer.node.create_publisher(Image, 'image', 5)
            assert observer.wait_for(images.get_subscription_count)
            observer.wait_for(lambda: False, 0.3)
            images.publish(Image(height=1, width=1, step=1, **message))
        observer.wait_for(lambda: False, 1.0)
        statuses = [str(one) for one in diagnosed(observer, 'quiet/depth')]
        words = [node.words(), *said, *statuses]
        assert said
        assert any('Cannot configure' in one for one in statuses)
        assert any('Rejected' in one for one in words)
        assert any('~/model' in one for one in statuses)  # enough to find it, for its owner
        for secret in secrets:
            assert not [one for one in words if secret in one]
    finally:
        observer.node.destroy_node()


def test_jumps_of_a_simulated_clock(secretive, frames):
    """After the test above, which leaves the node active."""
    node, _ = secretive
    observer = Observer('/quiet')
    clock = observer.node.create_publisher(Clock, '/clock', 10)
    camera = Camera(node, observer)
    rgb = next(iter(frames.values()))[0]
    try:
        assert observer.state() == 'active'
        assert observer.wait_for(clock.get_subscription_count)
        for sec in (5000, 5001, 8600, 1400, 1, 2**31 - 1, 10):
            clock.publish(Clock(clock=Time(sec=sec)))
            assert camera.answered(rgb, sec * 10**9), sec
            latest(observer, 'quiet/depth')  # goes on, although the clock stands still
        _, values = latest(observer, 'quiet/depth')
        assert values['last reset'].startswith('stamp went back')
        assert identity_holds(values)
        assert int(values['failed']) == 0
    finally:
        observer.node.destroy_node()


NETWORK = r"""
import dataclasses, json, sys

attempts = []
def watch(event, arguments):
    if event in ('socket.getaddrinfo', 'socket.gethostbyname', 'socket.connect', 'socket.sendto'):
        attempts.append(f'{event} {arguments[1:]}')
        raise OSError('the test allows no network')
sys.addaudithook(watch)

import rclpy
from rclpy.parameter import Parameter
from smoothdino_ros.depth_node import DepthNode
from smoothdino_ros.parameters import NodeParameters

model, downloading = sys.argv[1:]
rclpy.init()
node = DepthNode()
texts = [f.name for f in dataclasses.fields(NodeParameters) if isinstance(f.default, str)]
urls = ('https://example.org/model', 'ftp://example.org', 'nobody/nothing', '//example.org/x')
cases = [{name: value} for name in texts if name != 'model' for value in urls]
cases += [{'cameras': list(urls)}, {'adapter': 'none'}, {'temporal': False}, {}]
cases += [{'model': m} for m in ('smoothdino-small', 'https://example.org/model',
                                 '//example.org/x', 'hf://nobody/nothing', '/absent', 'nobody',
                                 'a/b/c')]
configured = 0
def configure(case):
    values = {f.name: f.default for f in dataclasses.fields(NodeParameters)}
    values = {k: list(v) or [''] if isinstance(v, tuple) else v for k, v in values.items()}
    values |= {'model': model} | case
    node.set_parameters([Parameter(k, value=v) for k, v in values.items()])
    done = node.trigger_configure()
    if done == done.SUCCESS:
        node.trigger_cleanup()
    return done == done.SUCCESS
for case in cases:
    configured += configure(case)
without = list(attempts)
configure({'model': downloading})
print(json.dumps({'configured': configured, 'without': without, 'with': attempts}))
node.destroy_node()
rclpy.shutdown()
"""


def test_only_a_model_to_download_leads_to_the_network(tiny_model_dir, tmp_path, dds):
    environment = {k: v for k, v in os.environ.items() if not re.match('HF_|.*_proxy', k)}
    done = subprocess.run(
        [sys.executable, '-c', NETWORK, str(tiny_model_dir), 'nobody/nothing'],
        cwd=ROOT,
        env=environment | {'HF_HOME': str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said['configured'] >= 4, done.stderr
    assert said['without'] == []
    assert said['with'], 'a model to download should have led to an attempt'
