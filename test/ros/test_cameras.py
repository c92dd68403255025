# SPDX-License-Identifier: Apache-2.0
"""Cameras of one node over DDS: of other sizes and rates, uncalibrated, absent, mistaken."""

import signal

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from smoothdino_model.recordings.image_bytes import image_fields
from smoothdino_model.recordings.images import rgb_from_bytes
from smoothdino_model.room.sample_room import NYU_FOCAL
from smoothdino_ros.depth_colors import depth_colors
from support.camera_messages import LATCHED, picture_and_info
from support.point_clouds import points_of
from support.ros_processes import Observer, Process, depth_m, depth_node, stamp_ns

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]
CAMERAS = {'front': (64, 48, 10.0), 'rear': (112, 70, 1.0)}  # width, height, Hz


SCALE_OF_100_PX = 100.0 / 64 / NYU_FOCAL / (48 / 64 * 4 / 3) ** 0.5


def camera_process(log, name: str) -> Process:
    width, height, rate_hz = CAMERAS[name]
    values = {
        'width': width,
        'height': height,
        'rate_hz': rate_hz,
        'focal_px': 1.5 * NYU_FOCAL * width,
        'frame_id': f'{name}_optical',
    }
    arguments = [word for key, value in values.items() for word in ('-p', f'{key}:={value}')]
    for topic in ('image', 'camera_info'):
        arguments += ['-r', f'{topic}:=/{name}/{topic}']
    arguments += ['-r', f'__node:={name}_camera']
    return Process(log, '-m', 'smoothdino_ros.demo.sample_camera', '--ros-args', *arguments)


class Viewer(Observer):
    """Sees all outputs of the front camera, and the depth of the rear one."""

    def __init__(self) -> None:
        super().__init__(prefix='front/')
        self.points: list[PointCloud2] = []
        self.colors: list[Image] = []
        self.rear: list[Image] = []
        for kind, topic, received in (
            (PointCloud2, 'front/depth/points', self.points),
            (Image, 'front/depth/image_color', self.colors),
            (Image, 'rear/depth/image', self.rear),
        ):
            self.node.create_subscription(kind, topic, received.append, 20)
        # What cannot match: an image of another type, and QoS at either end.
        self.node.create_publisher(CompressedImage, 'mistaken/image', 5)
        best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.node.create_publisher(CameraInfo, 'mistaken/camera_info', best_effort)
        latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(Image, 'lost/depth/image', lambda _: None, latched)

    def forget(self) -> None:
        for received in (self.reliable, self.infos, self.points, self.colors, self.rear):
            received.clear()

    def status(self, name: str) -> tuple[bytes, str, dict[str, str]]:
        """Level, message and values of the next diagnostics of a camera, or of the node."""
        self.diagnostics.clear()
        assert self.wait_for(lambda: self.diagnostics)
        (one,) = [s for s in self.diagnostics[-1].status if s.name == f'depth: {name}']
        return one.level, one.message, {pair.key: pair.value for pair in one.values}

    def until_status(self, name: str, condition) -> bool:
        return self.wait_for(lambda: condition(*self.status(name)), 30)


@pytest.fixture(scope='module')
def latched(dds):
    """A driver that told of its camera once, before the node was there."""
    one = rclpy.create_node('latched_driver')
    one.create_publisher(CameraInfo, 'latched/camera_info', LATCHED).publish(
        picture_and_info(stamp_s=0, focal_px=100.0)[1]
    )
    yield one
    one.destroy_node()


@pytest.fixture(scope='module')
def node(tiny_model_dir, tmp_path_factory, latched):
    with depth_node(
        tmp_path_factory.mktemp('node') / 'log.txt',
        *('-p', f'model:={tiny_model_dir}', '-p', 'max_depth_m:=1000'),
        *('-p', 'cameras:=[front, rear, lost, mistaken, strange, late, latched]'),
        *('-p', 'diagnostics_period_s:=0.5', '-p', 'unsubscribe_after_s:=0.0'),
        *('-p', 'qos_overrides./mistaken/camera_info.subscription.reliability:=reliable'),
    ) as process:
        yield process


@pytest.fixture(scope='module')
def viewer(node):
    one = Viewer()
    assert one.wait_for(lambda: one.state() == 'active', 200), node.words()
    yield one
    one.node.destroy_node()


@pytest.fixture(scope='module')
def cameras(viewer, tmp_path_factory):
    logs = tmp_path_factory.mktemp('cameras')
    running = {name: camera_process(logs / name, name) for name in CAMERAS}
    assert viewer.wait_for(lambda: viewer.reliable and viewer.rear, 60), [
        one.words() for one in running.values()
    ]
    yield running
    for one in running.values():
        one.end(signal.SIGKILL)


def test_a_slow_camera_holds_up_no_fast_one(viewer, cameras):
    viewer.forget()
    assert viewer.wait_for(
        lambda: len(viewer.rear) >= 3 and len(viewer.reliable) >= 3 * len(viewer.rear), 60
    )
    assert {(one.width, one.height) for one in viewer.reliable} == {(64, 48)}
    assert {(one.width, one.height) for one in viewer.rear} == {(112, 70)}
    assert {one.header.frame_id for one in viewer.rear} == {'rear_optical'}


def test_every_output_of_a_frame_is_in_step(viewer, cameras):
    viewer.forget()
    assert viewer.wait_for(lambda: len(viewer.reliable) >= 6, 30)
    stamps_ns = list(map(stamp_ns, viewer.reliable))[1:]  # the first may be cut by forgetting

    def by_stamp(messages) -> dict:
        return {stamp_ns(one): one for one in messages}

    for received in (viewer.infos, viewer.points, viewer.colors):
        assert viewer.wait_for(lambda r=received: set(stamps_ns) <= set(by_stamp(r)))
    depths = {at: depth_m(one) for at, one in by_stamp(viewer.reliable).items()}
    infos, clouds, colors = map(by_stamp, (viewer.infos, viewer.points, viewer.colors))
    for at in stamps_ns:
        focal_px = infos[at].k[0]
        assert np.isclose(focal_px, 1.5 * NYU_FOCAL * 64)
        xyz, _ = points_of(clouds[at])
        known = np.isfinite(depths[at])
        assert known.any()
        np.testing.assert_array_equal(np.isfinite(xyz[..., 2]), known)
        np.testing.assert_array_equal(xyz[known, 2], depths[at][known])
        column = xyz[known, 0] / xyz[known, 2] * focal_px + infos[at].k[2]
        np.testing.assert_allclose(column, np.nonzero(known)[1], atol=1e-3)
        painted = colors[at]
        rgb = rgb_from_bytes(**image_fields(painted))
        expected = depth_colors(depths[at], min_depth_m=0.1, max_depth_m=1000.0)
        np.testing.assert_array_equal(rgb, expected)
        assert {one.header.frame_id for one in (clouds[at], painted, infos[at])} == {
            'front_optical'
        }


def test_outputs_change_while_the_stream_runs(viewer, cameras):
    assert not viewer.set(points_stride=4, publish_color=False)
    viewer.forget()
    assert viewer.wait_for(lambda: viewer.points and viewer.points[-1].width == 16)
    assert viewer.points[-1].height == 12
    assert 'points_stride' in viewer.set(points_stride=0)
    assert not viewer.set(points_stride=1, points_max_range_m=900, points_voxel_m=0.5)
    assert viewer.wait_for(lambda: viewer.points and viewer.points[-1].is_dense)
    xyz, _ = points_of(viewer.points[-1])
    assert 0 < xyz.shape[1] < 64 * 48
    assert len(np.unique(np.floor(xyz[0] / 0.5), axis=0)) == xyz.shape[1]
    assert not viewer.set(points_max_range_m=0, points_voxel_m=0)
    assert not viewer.set(publish_points=False)
    viewer.forget()
    assert viewer.wait_for(lambda: len(viewer.reliable) >= 6)
    last_ns = stamp_ns(viewer.reliable[2])  # from before, or in work while it was set
    assert not [one for one in (*viewer.points, *viewer.colors) if stamp_ns(one) > last_ns]
    assert not viewer.set(points_stride=1, publish_points=True, publish_color=True)
    assert viewer.wait_for(lambda: viewer.points and viewer.colors)


def test_the_focal_length_is_corrected_and_told_of(viewer, cameras):
    scale = 'focal length scale'
    wide = 1.5 / (48 / 64 * 4 / 3) ** 0.5
    assert viewer.until_status('front', lambda *s: np.isclose(float(s[2][scale]), wide, atol=1e-3))
    assert not viewer.set(focal_correction=False)
    assert viewer.until_status('front', lambda *s: s[2][scale] == '1.000')
    assert not viewer.set(focal_correction=True)
    assert viewer.until_status('front', lambda level, _, values: values[scale] != '1.000')


def test_what_is_overdue_is_dropped_and_told_of(node, viewer, cameras):
    assert not viewer.set(max_latency_s=1e-6)
    assert viewer.until_status('front', lambda level, *_: level == DiagnosticStatus.ERROR)
    viewer.forget()
    _, message, before = viewer.status('front')
    assert 'overdue' in message
    assert viewer.until_status('front', lambda *s: int(s[2]['overdue']) > int(before['overdue']))
    assert not viewer.reliable
    assert 'max_latency_s' in node.words()
    assert not viewer.set(max_latency_s=0)
    assert viewer.wait_for(lambda: viewer.reliable)


def test_a_camera_that_is_wrong_says_so_once_and_is_answered(node, viewer, cameras):
    """Uncalibrated and distorted; then with a K whose pixels are not square."""
    images = viewer.node.create_publisher(Image, 'strange/image', 5)
    infos = viewer.node.create_publisher(CameraInfo, 'strange/camera_info', 5)
    answers: list[Image] = []
    viewer.node.create_subscription(Image, 'strange/depth/image', answers.append, 20)
    viewer.wait_for(lambda: images.get_subscription_count() and infos.get_subscription_count())
    viewer.wait_until_known()
    image = Image(height=48, width=64, encoding='rgb8', step=192, data=bytes(range(192)) * 48)
    info = CameraInfo(height=48, width=64, distortion_model='plumb_bob', d=[0.1, 0.0, 0.0, 0, 0])
    for i in range(4):
        image.header.stamp.sec = i
        infos.publish(info)
        images.publish(image)
        assert viewer.wait_for(lambda i=i: answers and answers[-1].header.stamp.sec == i)
    said = node.words()
    assert said.count('strange: Depth is not scaled by the focal length') == 1
    assert said.count('image_rect') == 1
    level, message, _ = viewer.status('strange')
    assert (level, 'not calibrated' in message) in (
        (DiagnosticStatus.WARN, True),
        (DiagnosticStatus.STALE, False),  # on a machine so slow that this comes three seconds late
    )
    info.d = [0.0] * 5
    for i in range(4, 8):
        info.k = [100.0 + i, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0]  # a lens that zooms
        image.header.stamp.sec = i
        infos.publish(info)
        images.publish(image)
        assert viewer.wait_for(lambda i=i: answers and answers[-1].header.stamp.sec == i)
    assert node.words().count('strange: The camera_info is doubtful: expected square pixels') == 1


def test_an_image_waits_for_the_first_camera_info(viewer, cameras):
    images = viewer.node.create_publisher(Image, 'late/image', 5)
    infos = viewer.node.create_publisher(CameraInfo, 'late/camera_info', 5)
    answers: list[Image] = []
    viewer.node.create_subscription(Image, 'late/depth/image', answers.append, 20)
    assert viewer.wait_for(
        lambda: images.get_subscription_count() and infos.get_subscription_count()
    )
    viewer.wait_until_known()
    image, info = picture_and_info(stamp_s=1, focal_px=100.0)
    images.publish(image)
    infos.publish(info)
    assert viewer.wait_for(lambda: answers)
    _, _, values = viewer.status('late')
    assert np.isclose(float(values['focal length scale']), SCALE_OF_100_PX, atol=1e-3)
    assert (values['received'], values['answered']) == ('1', '1')


def test_a_camera_info_that_was_latched_before_the_node_was_there_counts(node, viewer):
    images = viewer.node.create_publisher(Image, 'latched/image', 5)
    answers: list[Image] = []
    viewer.node.create_subscription(Image, 'latched/depth/image', answers.append, 20)
    assert viewer.wait_for(images.get_subscription_count)
    viewer.wait_until_known()
    images.publish(picture_and_info(stamp_s=1, focal_px=0.0)[0])
    assert viewer.wait_for(lambda: answers)
    _, _, values = viewer.status('latched')
    assert np.isclose(float(values['focal length scale']), SCALE_OF_100_PX, atol=1e-3)


def test_what_keeps_a_topic_silent_is_said_once(node, viewer, cameras):
    def said(*words: str) -> bool:
        return any(all(word in line for word in words) for line in node.words().splitlines())

    assert viewer.wait_for(lambda: said('QoS mismatch on /mistaken/camera_info', 'reliability'))
    assert viewer.wait_for(lambda: said('QoS mismatch on /lost/depth/image', 'durability'))
    assert viewer.wait_for(lambda: said('come on /lost/image', 'no publisher'))
    assert viewer.wait_for(
        lambda: said('come on /mistaken/image', 'sends sensor_msgs/msg/CompressedImage')
    )
    assert said('come on /mistaken/camera_info', 'does not match')
    assert viewer.wait_for(lambda: said('come on /latched/image'))
    assert not said('come on /latched/camera_info')  # it came, and holds until the next
    silences = [line for line in node.words().splitlines() if 'Nothing has come on /mista' in line]
    assert len(silences) == 2
    assert not any('/front/depth/image' in line for line in silences)  # the node's own


def test_a_camera_of_which_every_image_is_rejected_is_not_well_between_them(viewer):
    images = viewer.node.create_publisher(Image, 'lost/image', 5)
    assert viewer.wait_for(images.get_subscription_count)
    viewer.wait_until_known()
    for rejected in ('1', '2'):
        images.publish(Image(height=2, width=2, encoding='rgb8', step=6, data=b'short'))
        assert viewer.until_status('lost', lambda *s, n=rejected: s[2]['rejected'] == n)
        for _ in range(3):  # without an image
            level, message, values = viewer.status('lost')
            assert level in (DiagnosticStatus.WARN, DiagnosticStatus.STALE)  # by the machine
            assert 'Rejected: expected 2 rows' in message
            assert (values['received'], values['answered']) == (rejected, '0')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_camera_in_the_making_ends_quietly(number, viewer, tmp_path):
    large = ('-r', '__node:=large', '-p', 'width:=700', '-p', 'height:=500')
    one = Process(
        tmp_path / 'log', '-m', 'smoothdino_ros.demo.sample_camera', '--ros-args', *large
    )
    assert viewer.wait_for(lambda: 'large' in viewer.node.get_node_names(), 60)
    assert one.end(number) == 0, one.words()
    assert not one.words()


def test_a_dead_camera_is_stale_and_the_other_goes_on(viewer, cameras):
    cameras['rear'].end(signal.SIGKILL)
    assert viewer.until_status('rear', lambda level, *_: level == DiagnosticStatus.STALE)
    viewer.forget()
    assert viewer.wait_for(lambda: len(viewer.reliable) >= 10)
    assert not viewer.rear
    level, message, values = viewer.status('front')
    assert level == DiagnosticStatus.OK, message
    assert values['failed'] == '0'


def test_a_camera_in_full_stream_ends_quietly(cameras):
    """The last test of the cameras: the front one ends here."""
    assert cameras['front'].end(signal.SIGTERM) == 0
    assert not cameras['front'].words()
