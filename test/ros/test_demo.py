# SPDX-License-Identifier: Apache-2.0
"""The demo as a stranger runs it: real processes, real DDS, and none of them left behind."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import cv2
import numpy as np
import pytest

from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.recordings.images import rgb_from_bytes
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.scale.floor import floor_of_pose

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from std_msgs.msg import Header

from smoothdino_ros.conversions import rgb_message
from smoothdino_ros.demo.demo import private_network
from smoothdino_ros.demo.sample_camera import camera_info, floor_message

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path('/proc/self/environ').exists(), reason='processes are looked for in /proc'
    ),
]


class Demo:
    """A running demo whose processes, and theirs, carry a mark in their environment."""

    def __init__(self, *arguments: object) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'smoothdino_ros.demo', *map(str, arguments)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, 'SMOOTHDINO_TEST_MARK': self.mark, 'OMP_NUM_THREADS': '1'},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err

    def alive(self) -> list[str]:
        """The command lines of all its processes that still run."""
        found = []
        for process in Path('/proc').glob('[0-9]*'):
            try:
                if self.mark.encode() in (process / 'environ').read_bytes():
                    found.append((process / 'cmdline').read_text().replace('\0', ' '))
            except (PermissionError, FileNotFoundError, ProcessLookupError):
                continue  # another user's, or ended meanwhile
        return found

    def wait_for(self, condition) -> None:
        deadline_s = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline_s, self.alive()
            time.sleep(0.02)


@pytest.fixture
def demo():
    started: list[Demo] = []

    def start(*arguments: object) -> Demo:
        started.append(Demo(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()
        one.process.communicate(timeout=20)


@pytest.fixture
def clip(tmp_path) -> Path:
    """A small recording with exact depth, as the NYU clips lie on disk."""
    folder = tmp_path / 'clip'
    folder.mkdir()
    room = SampleRoom(5, height=98, width=126, rate_hz=5)
    for i in range(6):
        frame = room.frame(i)
        cv2.imwrite(str(folder / f'{i}.jpg'), frame.rgb[..., ::-1])
        depth_mm = np.nan_to_num(frame.depth_m * 1000).astype(np.uint16)
        cv2.imwrite(str(folder / f'{i}.png'), depth_mm)
    return folder


def test_no_two_are_in_one_domain_until_one_ends(tmp_path):
    """Of all there are: what asks beyond is told so, and whoever ends leaves its own to others."""
    script = """
from smoothdino_ros.demo.own_domain import DOMAINS, own_domain
assert {int(own_domain()) for _ in DOMAINS} == set(DOMAINS)
try:
    own_domain()
except RuntimeError as error:
    print(error)
"""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, '-c', script],
            cwd=Path(__file__).parents[2],
            env={**os.environ, 'TMPDIR': str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert 'all 100 DDS domains are taken' in done.stdout, done.stderr


def run_camera(*parameters: str) -> subprocess.CompletedProcess:
    words = [word for parameter in parameters for word in ('-p', parameter)]
    return subprocess.run(
        [sys.executable, '-m', 'smoothdino_ros.demo.sample_camera', '--ros-args', *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **private_network()},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_camera_ends_after_its_frames(clip):
    done = run_camera(f'input:={clip}', 'frames:=3', 'rate_hz:=50')
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize(
    ('parameter', 'reason'),
    [
        ('rate_hz:=0', 'rate_hz: expected more than 0'),
        ('seed:=one', "seed: expected int, got 'one'"),
        ('input:=/nowhere', '/nowhere'),
    ],
)
def test_a_camera_that_cannot_play_says_why_in_one_line(parameter, reason):
    done = run_camera(parameter)
    assert done.returncode == 1
    assert done.stderr.count('\n') == 1
    assert reason in done.stderr


def test_the_camera_sends_the_frame_and_its_pinhole():
    frame = SampleRoom(5, height=98, width=126).frame(0)
    header = Header(frame_id='eye')
    image = rgb_message(frame.rgb, header)
    names = ('data', 'encoding', 'height', 'width', 'step', 'is_bigendian')
    sent = rgb_from_bytes(**{name: getattr(image, name) for name in names})
    np.testing.assert_array_equal(sent, frame.rgb)
    info = camera_info(frame.intrinsics, header, height=98, width=126)
    assert Intrinsics.from_k(info.k, info.width, info.height) == frame.intrinsics
    assert (image.header.frame_id, info.header.frame_id) == ('eye', 'eye')
    uncalibrated = camera_info(None, header, height=98, width=126)
    assert not uncalibrated.k.any()


def test_the_camera_tells_where_the_floor_is():
    pose = SampleRoom(5, height=98, width=126).frame(7).world_from_camera
    down = floor_message(pose, Header(frame_id='eye')).vector
    floor = floor_of_pose(pose)
    np.testing.assert_allclose((down.x, down.y, down.z), np.multiply(floor.height_m, floor.down))


def test_a_room_ends_with_a_table_and_a_strip(demo, tiny_model_dir, tmp_path):
    run = demo('--model', tiny_model_dir, '--output', tmp_path, '--frames', 5, '--rate', 3)
    code, out, err = run.end()
    assert code == 0, out + err
    rows = {line[:12].strip(): line[12:].split() for line in out.splitlines()}
    for way in ('per frame', 'temporal', 'anchored'):
        rmse_m, abs_rel, flicker = map(float, rows[way])
        assert 0 < rmse_m < 100
        assert 0 < abs_rel < 100
        assert 0 <= flicker < 100
    assert rows['per frame'] != rows['temporal']
    assert 'p50' in out
    assert 'p99' in out
    strip = cv2.imread(str(tmp_path / 'strip.png'))
    assert f'{tmp_path}/strip.png' in out
    assert strip.shape == (3 * 240, 4 * 320, 3)  # three moments, and the pictures are 4:3
    rgb, _, _, truth = np.split(strip, 4, axis=1)
    assert rgb.std() > 10
    assert truth.std() > 10
    assert run.alive() == []


def test_a_recording_of_ones_own_needs_no_exact_depth(demo, tiny_model_dir, clip, tmp_path):
    for file in clip.glob('*.png'):
        file.unlink()
    output = tmp_path / 'out'
    run = demo('--model', tiny_model_dir, '--input', clip, '--output', output, '--frames', 8)
    code, out, err = run.end()
    assert code == 0, out + err
    assert '8 depth images' in out
    assert 'n/a' in out
    width = 2 * round(126 * 240 / 98)
    assert cv2.imread(str(output / 'strip.png')).shape == (3 * 240, width, 3)


@pytest.mark.parametrize(
    ('moment', 'number'),
    [('starting', signal.SIGINT), ('starting', signal.SIGTERM), ('streaming', signal.SIGINT)],
)
def test_a_signal_at_any_moment_ends_every_process(
    demo, tiny_model_dir, clip, tmp_path, moment, number
):
    run = demo('--model', tiny_model_dir, '--input', clip, '--output', tmp_path, '--frames', 999)
    run.wait_for(lambda: (tmp_path / 'camera.log').exists())
    if moment == 'streaming':
        assert any('Hz' in line for line in run.process.stdout)
    run.process.send_signal(number)
    code, _, err = run.end()
    assert code == 128 + number, err
    assert 'Traceback' not in err
    assert run.alive() == []


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux tells a child of its parent')
def test_a_killed_demo_takes_its_processes_along(demo, tiny_model_dir, clip, tmp_path):
    run = demo('--model', tiny_model_dir, '--input', clip, '--output', tmp_path, '--frames', 999)
    assert any('Hz' in line for line in run.process.stdout)
    assert len(run.alive()) == 4
    run.process.kill()
    run.process.wait()
    run.wait_for(lambda: not run.alive())


def test_a_process_that_dies_is_named_with_its_last_words(demo, tmp_path):
    recording = tmp_path / 'empty'
    recording.mkdir()
    code, _, err = (run := demo('--input', recording, '--output', tmp_path / 'out')).end()
    assert code == 1
    assert 'The camera process ended with exit code 1' in err
    assert str(recording) in err
    assert 'Traceback' not in err
    assert run.alive() == []


def test_a_model_that_cannot_be_loaded_ends_the_demo_with_the_reason(demo, tmp_path):
    bad = tmp_path / 'no_model'
    bad.mkdir()
    code, _, err = (run := demo('--model', bad, '--output', tmp_path / 'out')).end()
    assert code == 1
    assert f'{bad} holds no config.json' in err
    assert 'Traceback' not in err
    assert run.alive() == []
