# SPDX-License-Identifier: Apache-2.0
"""What happens to a node in weeks on a robot: cameras die, bags loop, memory runs out.

SMOOTHDINO_SOAK=1 runs 50 cycles of the lifecycle instead of a few.
"""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import Image

from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from support.node_in_this_process import GOOD, InThisProcess, good, outcomes
from support.ros_processes import Observer, Process, camera, depth_m, depth_node, stamp_ns
from support.single_pictures import Camera, identity_holds, latest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]
SOAK = bool(os.environ.get('SMOOTHDINO_SOAK'))
PERIOD_NS = 33_333_333


@pytest.fixture(scope='module')
def node(tiny_model_dir, tmp_path_factory):
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    arguments = ('-p', f'model:={tiny_model_dir}', '-p', 'max_depth_m:=1000')
    with depth_node(log, *arguments, '-p', 'diagnostics_period_s:=0.2') as process:
        yield process


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


def first_depth(model_dir, rgb: np.ndarray, *, focal: float | None = None) -> np.ndarray:
    """Depth of a frame that no other went before, in the range of the node."""
    pipeline = DepthPipeline.from_pretrained(model_dir)
    depth = pipeline.step({'': CameraFrame(rgb, 0, focal=focal)})[''].depth_m
    return np.where(depth < 0.1, -np.inf, depth)


def test_a_killed_camera_comes_back(node, observer, frames, tiny_model_dir, tmp_path):
    path = next(iter(frames))
    one = camera(tmp_path / '1', path, '--laps', '100000')
    assert observer.wait_for(lambda: len(observer.reliable) >= 6, 120), node.words()
    one.end(signal.SIGKILL)
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
        cameras.append(camera(tmp_path / str(i), path, *options))
    assert observer.wait_for(lambda: not any(one.alive() for one in cameras), 120)
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
        if i >= warm_up:  # DDS has one more file open for a moment now and then
            observer.wait_for(lambda: memory_threads_files(node)[2] == used[-1][2], 5)
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
