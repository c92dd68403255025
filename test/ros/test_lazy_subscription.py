# SPDX-License-Identifier: Apache-2.0
"""A camera whose depth nobody wants costs nothing, and is taken up again at once."""

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from smoothdino_ros.topics import SILENT_AFTER_S
from support.node_in_this_process import good
from support.ros_processes import Observer, depth_node

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]


class Camera(Observer):
    """A camera of another process, which sees who subscribes, and the node's diagnostics."""

    def __init__(self) -> None:
        super().__init__(prefix='of_nobody/')
        self.images = self.node.create_publisher(Image, 'image', 5)
        self.infos_sent = self.node.create_publisher(CameraInfo, 'camera_info', 5)
        self.sent = 0

    def is_subscribed(self) -> bool:
        return self.images.get_subscription_count() > 0

    def rests(self) -> bool:
        return self.wait_for(lambda: not self.is_subscribed(), 30)

    def judged(self) -> tuple[bytes, str]:
        self.diagnostics.clear()
        assert self.wait_for(lambda: len(self.diagnostics) > 1)
        status = self.diagnostics[-1].status[1]
        return status.level, status.message

    def answered(self, kind, topic: str) -> bool:
        """Whether pictures are answered to a subscriber that comes now and goes again."""
        answers: list = []
        subscription = self.node.create_subscription(kind, topic, answers.append, 5)

        def shown_and_seen() -> bool:
            if self.is_subscribed():
                self.sent += 1
                self.images.publish(good(Image, self.sent * 10**8))
            return bool(answers)

        try:
            return self.wait_for(shown_and_seen, 30)
        finally:
            self.node.destroy_subscription(subscription)


@pytest.fixture(scope='module')
def node(tiny_model_dir, tmp_path_factory, dds):
    with depth_node(
        tmp_path_factory.mktemp('node') / 'log.txt',
        *('-p', f'model:={tiny_model_dir}'),
        *('-p', 'unsubscribe_after_s:=0.5', '-p', 'diagnostics_period_s:=0.2'),
    ) as process:
        yield process


@pytest.fixture(scope='module')
def camera(node):
    one = Camera()
    assert one.wait_for(lambda: one.state() == 'active', 200), node.words()
    yield one
    one.node.destroy_node()


def test_images_that_nobody_wants_are_not_subscribed_to_and_no_silence_is_told_of(node, camera):
    assert camera.rests()
    assert camera.judged() == (
        DiagnosticStatus.OK,
        'Images are not subscribed to: nobody subscribes to their depth.',
    )
    said = node.words().count('Nothing has come')  # in the time before, perhaps
    camera.wait_for(lambda: False, SILENT_AFTER_S + 2)
    assert node.words().count('Nothing has come') == said
    assert camera.infos_sent.get_subscription_count() == 1  # one that comes but once is not missed


@pytest.mark.parametrize(
    ('kind', 'topic'),
    [
        (Image, 'depth/image'),
        (CompressedImage, 'depth/image/compressedDepth'),
        (Image, 'depth/image_color'),
    ],
)
def test_a_subscriber_of_any_output_has_them_back_until_it_goes(node, camera, kind, topic):
    for _ in range(2):
        assert camera.rests()
        assert camera.answered(kind, topic), node.words()
    assert camera.rests()
    assert camera.judged()[0] == DiagnosticStatus.OK


def test_an_output_that_is_switched_off_is_wanted_by_nobody(camera):
    assert camera.rests()
    subscription = camera.node.create_subscription(PointCloud2, 'depth/points', lambda _: None, 5)
    assert camera.wait_for(camera.is_subscribed)
    assert not camera.set(publish_points=False)
    assert camera.rests()
    assert not camera.set(publish_points=True)
    assert camera.wait_for(camera.is_subscribed)
    camera.node.destroy_subscription(subscription)


def test_with_0_they_are_always_subscribed_to(node, camera):
    assert camera.rests()
    assert not camera.set(unsubscribe_after_s=0.0)
    assert camera.wait_for(camera.is_subscribed)
    camera.wait_for(lambda: False, 3.0)
    assert camera.is_subscribed()
    assert camera.wait_for(lambda: camera.judged()[0] == DiagnosticStatus.STALE)
    assert camera.wait_for(lambda: 'Nothing has come on /image' in node.words())
    assert not camera.set(unsubscribe_after_s=0.5)
    assert camera.rests()
