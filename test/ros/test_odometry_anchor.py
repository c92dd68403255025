# SPDX-License-Identifier: Apache-2.0
"""A drive through a room, its odometry published beside it: the scale by the way, over DDS."""

import math
from itertools import pairwise

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('nav_msgs', reason='needs nav_msgs')

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Quaternion, Vector3Stamped
from nav_msgs.msg import Odometry
from std_msgs.msg import Header

from support.driven_room import FOCAL_PX, PERIOD_NS, POSE, DrivenRoom
from support.ros_processes import ROOT, Observer, depth_m, depth_node
from support.still_room import anchored_node, log_error

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]

FRAMES = 16
POSE_WORDS = ' '.join(map(str, POSE))


class Driving(Observer):
    """Plays the drive, of which it has told before where the base is when."""

    def __init__(self, folder) -> None:
        super().__init__()
        self.room, self.scales, self.way = DrivenRoom(), [], 1.0
        self.frames = self.room.frames(FRAMES)
        self.change = lambda message: None
        self._folder, self._start_ns = folder, 0
        np.save(folder / 'drive.npy', np.stack([frame.rgb for frame in self.frames]))
        self.node.create_subscription(Vector3Stamped, 'depth/scale', self.scales.append, 50)
        self.output = self.node.create_publisher(Odometry, 'odometry', 50)

    def play_on(self) -> None:
        """Each drive is a while after the one before: its first image starts afresh."""
        self.scales.clear()
        self._start_ns += 100 * 10**9
        self._tell_the_way()
        start = ('--start-ns', str(self._start_ns), '--period-ns', str(PERIOD_NS))
        log, drive = self._folder / f'camera_{self._start_ns}', self._folder / 'drive.npy'
        self.play(log, str(drive), '--focal-px', str(FOCAL_PX), *start)

    def values(self) -> dict[str, str]:
        self.diagnostics.clear()
        assert self.wait_for(lambda: self.diagnostics)
        (one,) = [s for s in self.diagnostics[-1].status if s.name == 'depth: camera']
        return {value.key: value.value for value in one.values}

    def _tell_the_way(self) -> None:
        """At 50 Hz, of which some may be lost: the node takes them by best effort."""
        assert self.wait_for(self.output.get_subscription_count)
        for at_ns in range(-PERIOD_NS, (FRAMES + 1) * PERIOD_NS, PERIOD_NS // 5):
            position, quaternion = self.room.base(at_ns, way=self.way)
            sec, nanosec = divmod(self._start_ns + at_ns, 10**9)
            message = Odometry(child_frame_id='base')
            message.header = Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id='odom')
            message.pose.pose.position = Point(**dict(zip('xyz', position, strict=True)))
            turned = dict(zip('xyzw', quaternion, strict=True))
            message.pose.pose.orientation = Quaternion(**turned)
            self.change(message)
            self.output.publish(message)
            self.wait_for(lambda: False, timeout_s=0.02)


@pytest.fixture(scope='module')
def node(tmp_path_factory):
    with anchored_node(
        tmp_path_factory.mktemp('node') / 'log',
        scale_anchor='odometry',
        odometry_pose=f"'{POSE_WORDS}'",
        scale_warn=1.2,
    ) as process:
        yield process


@pytest.fixture(scope='module')
def viewer(node, tmp_path_factory):
    one = Driving(tmp_path_factory.mktemp('drive'))
    assert one.wait_for(lambda: one.state() == 'active', 200), node.words()
    yield one
    one.node.destroy_node()


def test_the_way_driven_puts_the_scale_right(viewer):
    viewer.play_on()
    values = viewer.values()
    last = viewer.frames[-1]
    network_m = depth_m(viewer.reliable[-1]) / viewer.scales[-1].vector.x
    best = float(np.median(last.depth_m / network_m))
    assert float(values['odometry scale']) == pytest.approx(best, rel=0.2)
    assert int(values['odometry inliers'].split(' of ')[0]) > 20
    assert abs(log_error(viewer.reliable[-1], last)) < 0.5 * math.log(best)
    steps = [math.log(b.vector.x / a.vector.x) for a, b in pairwise(viewer.scales)]
    assert max(map(abs, steps)) < math.log(1.1) + 1e-6


def test_wheels_that_count_twice_the_way_double_the_scale(viewer):
    before = float(viewer.values()['odometry scale'])
    viewer.way = 2.0
    viewer.play_on()
    assert float(viewer.values()['odometry scale']) == pytest.approx(2 * before, rel=0.25)
    viewer.way = 1.0


def no_turn(message: Odometry) -> None:
    message.pose.pose.orientation = Quaternion(x=0.0, y=0.0, z=0.0, w=0.0)


def not_finite(message: Odometry) -> None:
    message.pose.pose.position.x = math.nan


def another_clock(message: Odometry) -> None:
    message.header.stamp.sec += 3600


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (no_turn, 'length 0'),
        (not_finite, 'finite position'),
        (another_clock, 'do their clocks disagree'),
    ],
)
def test_what_measures_nothing_says_why_and_the_scale_stays(viewer, change, said):
    viewer.change = change
    viewer.play_on()
    assert said in viewer.values()['odometry why none']
    assert {one.vector.x for one in viewer.scales} == {1.0}
    viewer.change = lambda message: None


def test_without_nav_msgs_the_node_says_so_and_goes_on(tmp_path, monkeypatch):
    (tmp_path / 'nav_msgs').mkdir()
    (tmp_path / 'nav_msgs' / '__init__.py').write_text("raise ImportError('not installed')\n")
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{ROOT}')
    settings = {'scale_anchor': 'odometry', 'model': 'smoothdino-small'}
    words = [word for name, value in settings.items() for word in ('-p', f'{name}:={value}')]
    with depth_node(tmp_path / 'log', '-r', '__ns:=/bare', *words) as bare:
        viewer = Observer(namespace='/bare')
        assert viewer.wait_for(lambda: viewer.state() == 'active', 200), bare.words()
        assert viewer.wait_for(lambda: 'needs the package nav_msgs' in bare.words(), 20)
        viewer.node.destroy_node()


def test_an_odometry_that_is_silent_is_named(node, viewer):
    viewer.node.destroy_publisher(viewer.output)
    assert viewer.wait_for(
        lambda: 'come on /odometry' in node.words() and 'does not tell the scale' in node.words(),
        40,
    )
