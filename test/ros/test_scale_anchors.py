# SPDX-License-Identifier: Apache-2.0
"""The scale of depth by what a robot knows, over DDS: put right, bounded, told of."""

import math
from itertools import pairwise

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile

from smoothdino_model import floor_of_pose
from support.ros_processes import stamp_ns
from support.still_room import (
    FRAMES,
    StillRoom,
    anchored_node,
    log_error,
    still_view,
    without_looks,
)
from support.transform_stamped import transform

try:
    from tf2_msgs.msg import TFMessage
except ImportError:
    TFMessage = None

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]


@pytest.fixture(scope='module')
def view():
    return still_view()


@pytest.fixture(scope='module')
def node(tmp_path_factory):
    log = tmp_path_factory.mktemp('node') / 'log'
    doubtful = without_looks(tmp_path_factory.mktemp('model') / 'doubtful')
    with anchored_node(log, model=str(doubtful), scale_anchor='floor') as process:
        yield process


@pytest.fixture(scope='module')
def viewer(node, view, tmp_path_factory):
    one = StillRoom(view, tmp_path_factory.mktemp('room'))
    yield one
    one.node.destroy_node()


def test_a_floor_without_the_camera_s_height_is_refused_in_a_sentence(node, viewer, view):
    assert viewer.state() == 'unconfigured'
    assert viewer.wait_for(lambda: 'Parameter camera_height_m: expected 0.02' in node.words())
    assert not viewer.transition('configure')
    floor = floor_of_pose(view.world_from_camera)
    right, down, ahead = floor.down
    assert not viewer.set(
        camera_height_m=floor.height_m,
        camera_pitch_deg=math.degrees(math.asin(ahead)),
        camera_roll_deg=math.degrees(math.atan2(right, down)),
    )
    assert viewer.transition('configure')
    assert viewer.transition('activate')


def test_a_wrong_scale_is_put_right_in_small_steps_and_told_of(node, viewer, view):
    viewer.play_on()
    assert len(viewer.reliable) == len(viewer.scales) == FRAMES, node.words()
    assert log_error(viewer.reliable[0], view) < -0.5
    assert abs(log_error(viewer.reliable[-1], view)) < 0.1
    for (one, after), (scale, scale_after) in zip(
        pairwise(viewer.reliable), pairwise(viewer.scales), strict=True
    ):
        step = log_error(after, view) - log_error(one, view)
        assert abs(step) < math.log(1.1) + 0.02
        told = math.log(scale_after.vector.x / scale.vector.x)
        assert step == pytest.approx(told, abs=0.02)  # the picture stands still
        assert stamp_ns(scale_after) == stamp_ns(after)
    values = viewer.values()
    scale = viewer.scales[-1]
    assert float(values['anchor scale']) == pytest.approx(scale.vector.x, abs=1e-3)
    assert float(values['floor scale']) == pytest.approx(2.0, rel=0.1)
    assert 0.06 <= float(values['floor spread']) == pytest.approx(scale.vector.y, abs=1e-3)
    assert float(values['floor age [s]']) == scale.vector.z == 0
    assert values['floor inliers'].endswith(' of 3072')
    assert values['floor why none'] == ''


def test_what_contradicts_the_network_for_seconds_is_warned_of_with_both_numbers(
    node, viewer, view
):
    height_m = view.world_from_camera[2, 3]
    said = [line for line in node.words().splitlines() if 'floor contradicts' in line]
    assert len(said) == 1  # by the frames of the test above
    assert f'by camera_height_m the camera is {height_m:.2f} m' in said[0]
    seen_m = height_m / float(viewer.values()['floor scale'])
    assert float(said[0].split('by the depth of the network ')[1].split(' m')[0]) == pytest.approx(
        seen_m, abs=0.01
    )
    assert not viewer.set(scale_warn=3.0)
    viewer.play_on()
    one = viewer.camera()
    assert one.level == DiagnosticStatus.OK or 'No image' in one.message
    assert 'contradicts' not in one.message


def test_a_height_off_by_two_is_bounded_and_warned_of(node, viewer, view):
    height_m = float(view.world_from_camera[2, 3])
    assert not viewer.set(camera_height_m=2 * height_m, scale_max=2.5)
    viewer.play_on()
    scales = [one.vector.x for one in viewer.scales]
    assert max(scales) == scales[-1] == pytest.approx(2.5)
    assert max(after / one for one, after in pairwise(scales)) < 1.1 + 1e-6
    one = viewer.camera()
    assert one.level in (DiagnosticStatus.WARN, DiagnosticStatus.STALE)  # by the machine
    assert f'the camera is {2 * height_m:.2f} m over it' in one.message
    assert node.words().count('floor contradicts') == 2


def test_a_frame_of_which_tf_knows_nothing_is_said_and_the_scale_stays(viewer):
    assert not viewer.set(base_frame='room', camera_height_m=0.0, scale_max=4.0)
    viewer.stamp_ns += 2 * 10**9  # the gap forgets the scale
    viewer.play_on()
    way = 'knows no way' if TFMessage else 'tf2_msgs is not installed'
    assert way in viewer.values()['floor why none']
    assert {one.vector.x for one in viewer.scales} == {1.0}


@pytest.mark.skipif(TFMessage is None, reason='needs tf2_msgs, of which PyPI has none')
def test_height_and_tilt_are_taken_from_tf(viewer, view):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    static = viewer.node.create_publisher(TFMessage, '/tf_static', latched)
    stands = transform('room', 'camera_optical_frame', view.world_from_camera)
    static.publish(TFMessage(transforms=[stands]))
    assert not viewer.set(camera_pitch_deg=0.0, camera_roll_deg=0.0)
    viewer.play_on()
    values = viewer.values()
    assert values['floor why none'] == ''
    assert float(values['floor scale']) == pytest.approx(2.0, rel=0.1)
    assert abs(log_error(viewer.reliable[-1], view)) < 0.1
