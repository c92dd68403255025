# SPDX-License-Identifier: Apache-2.0
"""The floor of a camera whose height is a number and whose tilt an IMU tells, over DDS."""

import math
from itertools import pairwise

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Vector3
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Imu
from std_msgs.msg import Header

from smoothdino_model import floor_of_pose
from smoothdino_model.scale.ranges import mounted
from support.ros_processes import stamp_ns
from support.still_room import StillRoom, anchored_node, log_error, still_view
from support.transform_stamped import transform

try:
    from tf2_msgs.msg import TFMessage
except ImportError:
    TFMessage = None

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]

POSE = (0.0, 0.1, -0.2, 10.0, 50.0, -120.0)  # of the IMU in the camera
LATER_NS = 400_000_000  # than the image: near the next one, and near enough for the one after it
POSE_WORDS = ' '.join(map(str, POSE))


class Leaning(StillRoom):
    """Publishes with each image what an IMU beside it will measure at rest at the next."""

    info_readers = 2  # the node, and this

    def __init__(self, view, folder) -> None:
        super().__init__(view, folder)
        down = np.array(floor_of_pose(view.world_from_camera).down)
        self.acceleration = -9.81 * down @ mounted(*POSE)[:3, :3]
        self._output = self.node.create_publisher(Imu, 'imu', 5)
        self.node.create_subscription(CameraInfo, 'camera_info', self._on_info, 20)

    def _on_info(self, info: CameraInfo) -> None:
        x, y, z = self.acceleration.tolist()
        message = Imu(linear_acceleration=Vector3(x=x, y=y, z=z))
        sec, nanosec = divmod(stamp_ns(info) + LATER_NS, 10**9)
        message.header = Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id='imu_link')
        message.orientation_covariance[0] = -1.0  # not told, as REP 145 has it
        self._output.publish(message)


@pytest.fixture(scope='module')
def view():
    return still_view()


@pytest.fixture(scope='module')
def node(view, tmp_path_factory):
    with anchored_node(
        tmp_path_factory.mktemp('node') / 'log',
        scale_anchor='floor',
        camera_height_m=float(view.world_from_camera[2, 3]),
        tilt_by_imu=True,
        imu_pose=f"'{POSE_WORDS}'",
    ) as process:
        yield process


@pytest.fixture(scope='module')
def viewer(node, view, tmp_path_factory):
    one = Leaning(view, tmp_path_factory.mktemp('room'))
    assert one.wait_for(lambda: one.state() == 'active', 200), node.words()
    yield one
    one.node.destroy_node()


def test_gravity_and_a_height_put_the_scale_right_and_where_they_come_from_is_told(viewer, view):
    viewer.play_on()
    values = viewer.values()
    assert values['floor why none'] == ''
    assert float(values['floor scale']) == pytest.approx(2.0, rel=0.1)
    assert abs(log_error(viewer.reliable[-1], view)) < 0.1
    told = floor_of_pose(view.world_from_camera).in_words()
    assert values['floor'] == f'the camera is {told}, by camera_height_m, imu'


def test_an_imu_without_gravity_is_said_and_the_scale_stays(viewer):
    before, after = viewer.scales[-1].vector.x, viewer.acceleration
    viewer.acceleration = 0.01 * after
    viewer.play_on()
    assert 'gravity must be left in it' in viewer.values()['floor why none']
    assert viewer.values()['floor'] == ''
    assert all(one.vector.x == pytest.approx(before, rel=0.05) for one in viewer.scales)
    viewer.acceleration = after


@pytest.mark.skipif(TFMessage is None, reason='needs tf2_msgs, of which PyPI has none')
def test_the_imu_s_place_is_taken_from_tf(viewer):
    assert not viewer.set(imu_pose='')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    static = viewer.node.create_publisher(TFMessage, '/tf_static', latched)
    stands = transform('camera_optical_frame', 'imu_link', mounted(*POSE))
    static.publish(TFMessage(transforms=[stands]))
    viewer.play_on()
    assert float(viewer.values()['floor scale']) == pytest.approx(2.0, rel=0.1)
    steps = [math.log(b.vector.x / a.vector.x) for a, b in pairwise(viewer.scales)]
    assert max(map(abs, steps)) < math.log(1.1) + 1e-6


def test_an_imu_that_is_silent_is_named(node, viewer):
    viewer.node.destroy_publisher(viewer._output)
    assert viewer.wait_for(
        lambda: 'come on /imu' in node.words() and 'tilt_by_imu' in node.words(), 40
    )
