# SPDX-License-Identifier: Apache-2.0
"""Scan, sonar and sparse points as anchors of the scale, each by real messages over DDS."""

import math
from itertools import pairwise

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, LaserScan, PointCloud2, PointField, Range
from std_msgs.msg import Header

from smoothdino_model.scale.ranges import mounted
from support.ros_processes import depth_m, stamp_ns
from support.still_room import StillRoom, anchored_node, log_error, still_view
from support.transform_stamped import transform

try:
    from tf2_msgs.msg import TFMessage
except ImportError:
    TFMessage = None

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]

KINDS = {'scan': LaserScan, 'range': Range, 'points': PointCloud2}
SCAN_POSE = (0.0, 0.0, 0.0, 180.0, 0.0, 20.0)  # upside down, looks to the left
POINTS_POSE = (0.1, -0.2, 0.3, 0.0, 25.0, -10.0)
ROWS = {'scan': slice(58, 62), 'range': slice(0, None), 'points': slice(4, None, 12)}
LATER_NS = 100_000_000  # than the image


class Sensors(StillRoom):
    """Publishes what each sensor would see, a little later than each image."""

    info_readers = 2  # the node, and this

    def __init__(self, view, folder) -> None:
        super().__init__(view, folder)
        self._points = {name: points_m(view, name) for name in KINDS}
        self._outputs = {
            name: self.node.create_publisher(kind, name, 5) for name, kind in KINDS.items()
        }
        self.change = {}  # of the messages, by the sensor's name
        self.node.create_subscription(CameraInfo, 'camera_info', self._on_info, 20)

    def _on_info(self, info: CameraInfo) -> None:
        sec, nanosec = divmod(stamp_ns(info) + LATER_NS, 10**9)
        for name, output in self._outputs.items():
            header = Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=f'{name}_frame')
            message = MAKE[name](header, self._points[name])
            self.change.get(name, lambda _: None)(message)
            output.publish(message)


def points_m(view, name: str) -> np.ndarray:
    """What a sensor sees: (N, 3) in its own frame, x ahead, y left, z up."""
    camera = view.intrinsics
    v, u = (index[ROWS[name], 2::3].ravel() for index in np.indices(view.depth_m.shape))
    z = view.depth_m[v, u]
    x, y = (u - camera.cx_px) / camera.fx_px * z, (v - camera.cy_px) / camera.fy_px * z
    pose = {'scan': SCAN_POSE, 'points': POINTS_POSE, 'range': (0.0,) * 6}[name]
    homogeneous = np.stack((x, y, z, np.ones_like(z)), axis=-1)
    return (homogeneous @ np.linalg.inv(mounted(*pose)).T)[:, :3]


def a_scan(header: Header, points: np.ndarray) -> LaserScan:
    """The nearest point within each of 720 beams; 0 where there is none."""
    step = 2 * math.pi / 720
    beam = ((np.arctan2(points[:, 1], points[:, 0]) + math.pi) / step).round().astype(int) % 720
    ranges = np.full(720, np.inf)
    np.minimum.at(ranges, beam, np.hypot(points[:, 0], points[:, 1]))
    ranges[~np.isfinite(ranges)] = 0.0
    return LaserScan(
        header=header,
        angle_min=-math.pi,
        angle_max=math.pi,
        angle_increment=step,
        range_min=0.05,
        range_max=30.0,
        ranges=ranges.tolist(),
    )


def a_range(header: Header, points: np.ndarray) -> Range:
    """A sonar of 20 degrees that looks as the camera does."""
    distance = np.linalg.norm(points, axis=1)
    inside = points[:, 0] > distance * math.cos(math.radians(10))
    return Range(
        header=header,
        field_of_view=math.radians(20),
        min_range=0.05,
        max_range=10.0,
        range=float(distance[inside].min()),
    )


def a_cloud(header: Header, points: np.ndarray) -> PointCloud2:
    data = points.astype('<f4')
    return PointCloud2(
        header=header,
        height=1,
        width=len(data),
        fields=[
            PointField(name=axis, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, axis in enumerate('xyz')
        ],
        point_step=12,
        row_step=data.nbytes,
        data=data.tobytes(),
    )


MAKE = {'scan': a_scan, 'range': a_range, 'points': a_cloud}


@pytest.fixture(scope='module')
def view():
    return still_view()


@pytest.fixture(scope='module')
def node(tmp_path_factory):
    with anchored_node(
        tmp_path_factory.mktemp('node') / 'log',
        scale_anchor='scan+range+points',
        scan_pose="'" + ' '.join(map(str, SCAN_POSE)) + "'",
        range_pose="'0 0 0 0 0 0'",
        scale_warn=1.2,
    ) as process:
        yield process


@pytest.fixture(scope='module')
def viewer(node, view, tmp_path_factory):
    one = Sensors(view, tmp_path_factory.mktemp('room'))
    assert one.wait_for(lambda: one.state() == 'active', 200), node.words()
    yield one
    one.node.destroy_node()


def steps(viewer) -> float:
    """The largest step of the scale from frame to frame, as a factor."""
    return max(abs(math.log(b.vector.x / a.vector.x)) for a, b in pairwise(viewer.scales))


def best_scale(viewer, view, name: str) -> float:
    """Of the network's own depth, where a sensor sees."""
    network_m = depth_m(viewer.reliable[-1]) / viewer.scales[-1].vector.x
    rows = ROWS[name]
    return float(np.median(view.depth_m[rows] / network_m[rows]))


def test_each_sensor_measures_the_scale_and_together_they_put_it_right(node, viewer, view):
    viewer.play_on()
    values = viewer.values()
    assert float(values['scan scale']) == pytest.approx(best_scale(viewer, view, 'scan'), rel=0.1)
    assert int(values['scan inliers'].split(' of ')[0]) > 20
    assert 1.1 < float(values['range scale']) < 3
    assert values['scan age [s]'] == values['range age [s]'] == '0.0'
    way = 'knows no way' if TFMessage else 'tf2_msgs is not installed'
    assert way in values['points why none']
    assert values['points scale'] == ''
    assert steps(viewer) < math.log(1.1) + 1e-6
    error = log_error(viewer.reliable[-1], view)
    of_the_network = error - math.log(viewer.scales[-1].vector.x)
    assert abs(error) < 0.6 * abs(of_the_network)
    assert 'contradicts the network: it sees things ' in node.words()


def test_points_are_taken_into_the_camera_by_parameters(viewer, view):
    assert not viewer.set(points_pose=' '.join(map(str, POINTS_POSE)))
    viewer.play_on()
    values = viewer.values()
    assert values['points why none'] == ''
    assert float(values['points scale']) == pytest.approx(
        best_scale(viewer, view, 'points'), rel=0.1
    )
    assert not viewer.set(points_pose='')


@pytest.mark.skipif(TFMessage is None, reason='needs tf2_msgs, of which PyPI has none')
def test_points_are_taken_into_the_camera_by_tf(viewer, view):
    """camera_optical_frame < mast (which moves, on /tf) < points_frame (static)."""
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    static = viewer.node.create_publisher(TFMessage, '/tf_static', latched)
    moving = viewer.node.create_publisher(TFMessage, '/tf', 100)
    static.publish(
        TFMessage(transforms=[transform('mast', 'points_frame', mounted(*POINTS_POSE))])
    )
    stay = transform('camera_optical_frame', 'mast', np.eye(4))
    mast = viewer.node.create_subscription(
        CameraInfo, 'camera_info', lambda info: moving.publish(stamped(stay, info)), 20
    )
    viewer.play_on()
    values = viewer.values()
    assert values['points why none'] == ''
    assert float(values['points scale']) == pytest.approx(
        best_scale(viewer, view, 'points'), rel=0.1
    )
    viewer.node.destroy_subscription(mast)
    viewer.stamp_ns += 10**9
    viewer.play_on()
    assert "transform of 'mast' is" in viewer.values()['points why none']


def stamped(one: TransformStamped, info: CameraInfo):
    one.header.stamp = info.header.stamp
    return TFMessage(transforms=[one])


def blind(message) -> None:
    if isinstance(message, LaserScan):
        message.ranges = [math.nan, 0.0, math.inf, -1.0] * 180
    else:
        message.range = math.inf


def another_clock(message) -> None:
    message.header.stamp.sec += 3600


def broken(message) -> None:
    message.data = message.data[: len(message.data) // 2]


def test_what_measures_nothing_says_why_and_the_scale_stays(viewer):
    before = viewer.scales[-1].vector.x
    viewer.change = {'scan': blind, 'range': another_clock, 'points': broken}
    assert not viewer.set(points_pose=' '.join(map(str, POINTS_POSE)))
    viewer.stamp_ns += 2 * 10**9  # the gap forgets the scale, and no old scan is near
    viewer.play_on()
    values = viewer.values()
    assert 'nothing within its range' in values['scan why none']
    assert 'do their clocks agree' in values['range why none']
    assert 'bytes' in values['points why none']
    assert {one.vector.x for one in viewer.scales} == {1.0}
    assert before > 1.2
    viewer.change = {'scan': another_clock, 'range': blind}
    viewer.play_on()
    assert 'range sees nothing' in viewer.values()['range why none']
    assert steps(viewer) < math.log(1.1) + 1e-6
    assert viewer.scales[-1].vector.x > 1.2


def test_a_sensor_that_is_silent_is_named(node, viewer):
    viewer.node.destroy_publisher(viewer._outputs.pop('scan'))
    assert viewer.wait_for(
        lambda: 'come on /scan' in node.words() and 'does not tell the scale' in node.words(), 40
    )
