# SPDX-License-Identifier: Apache-2.0
"""One camera of a node in this process: which camera_info counts, and what is held or said."""

from dataclasses import replace
from time import monotonic
from types import SimpleNamespace

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from smoothdino_ros import camera, topics
from smoothdino_ros.camera import Camera
from smoothdino_ros.inference_worker import CameraCounts, Waiting
from smoothdino_ros.parameters import NodeParameters
from smoothdino_ros.tf_listener import TfListener
from support.camera_messages import LATCHED, picture_and_info
from support.clock import Clock
from support.ros_processes import stamp_ns

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]


class CameraHere:
    """A camera of the node in this process; its callbacks are called as the executor would."""

    def __init__(self) -> None:
        self.node = LifecycleNode('here')
        self.taken: list[Image] = []
        self.camera = Camera(
            self.node, 'here/', NodeParameters(), TfListener(self.node, wanted=False)
        )
        self.camera.subscribe(self.taken.append)
        calls = {one.topic_name: one.callback for one in self.node.subscriptions}
        self.on_image, self.on_info = calls['/here/image'], calls['/here/camera_info']

    def is_ready(self) -> bool:
        return self.camera.ready()

    def focal_px(self, image: Image) -> float | None:
        frame = self.camera.read(Waiting(image, stamp_ns(image), 0.0))
        return frame.focal and frame.focal * image.width

    def close(self) -> None:
        self.camera.destroy()
        self.node.destroy_node()


@pytest.fixture
def here(dds):
    one = CameraHere()
    yield one
    one.close()


@pytest.fixture
def said(here, monkeypatch):
    """What the node warns of."""
    warnings: list[str] = []
    monkeypatch.setattr(here.node, 'get_logger', lambda: SimpleNamespace(warning=warnings.append))
    return warnings


@pytest.fixture
def clock(here, monkeypatch):
    """The clock by which silences are judged; the camera has just subscribed."""
    still = Clock()
    monkeypatch.setattr(topics, 'monotonic', still.monotonic)
    here.camera.unsubscribe()
    here.camera.subscribe(here.taken.append)
    return still


def test_an_image_is_calibrated_by_the_info_of_its_stamp_though_a_later_one_is_there(here):
    made = {stamp_s: picture_and_info(stamp_s, 50.0 + stamp_s) for stamp_s in range(6)}
    for _, info in made.values():
        here.on_info(info)
    assert [here.focal_px(image) for image, _ in made.values()] == [50, 51, 52, 53, 54, 55]
    of_none, _ = picture_and_info(77, 0.0)
    assert here.focal_px(of_none) == 55  # the latest


def test_the_white_of_a_12_bit_camera_is_held_and_said_once(here, monkeypatch):
    said: list[str] = []
    log = SimpleNamespace(info=said.append)
    monkeypatch.setattr(here.node, 'get_logger', lambda: log)

    def shown(brightest: int) -> int:
        pixels = np.linspace(0, brightest, 64 * 48).astype('<u2').tobytes()
        image = Image(height=48, width=64, encoding='mono16', step=128, data=pixels)
        return int(here.camera.read(Waiting(image, 0, 0.0)).rgb.max())

    assert [shown(brightest) for brightest in (4095, 511, 4000)] == [255, 31, 250]
    assert len(said) == 1
    assert said[0].startswith('here: 16-bit pictures')
    assert 'bit_depth' in said[0]
    here.camera.settings = replace(here.camera.settings, bit_depth=16)
    here.camera.unsubscribe()
    here.camera.subscribe(here.taken.append)
    assert [shown(brightest) for brightest in (4095, 65535)] == [15, 255]
    assert len(said) == 1


def test_a_camera_info_that_came_once_is_not_missed(here, said, clock):
    calls = {one.topic_name: one.callback for one in here.node.subscriptions}
    calls['/here/camera_info'](picture_and_info(1, 100.0)[1])
    for _ in range(5):
        clock.advance(60.0)
        here.camera.check_topics()
    assert ['/here/image' in text for text in said] == [True], said


def test_a_publisher_that_has_just_come_is_given_time_to_begin(here, said, clock):
    clock.advance(4.0)
    here.camera.check_topics()
    publisher = here.node.create_publisher(Image, 'here/image', 5)
    while not here.node.count_publishers(publisher.topic_name):
        rclpy.spin_once(here.node, timeout_sec=0.01)
    of_images: list[list[bool]] = []
    for _ in range(3):  # 4, 8 and 12 s after the subscription, the publisher being there since 4
        here.camera.check_topics()
        of_images.append(['/here/image' in text for text in said])
        clock.advance(4.0)
    assert [any(one) for one in of_images] == [False, False, True]
    (text,) = [text for text in said if '/here/image' in text]
    assert 'sends nothing' in text


def test_the_last_judgement_holds_until_another_image_ends(here):
    def status(counts: CameraCounts) -> tuple[bytes, str]:
        one = here.camera.status('here', counts, enabled=False)
        return one.level, one.message

    now_s = monotonic()
    failed = CameraCounts(received=1, failed=1, last_failure='no memory', last_received_s=now_s)
    for _ in range(3):
        assert status(failed) == (DiagnosticStatus.ERROR, 'no memory')
        failed = replace(failed, received=failed.received + 1, dropped=failed.dropped + 1)
    well = replace(failed, received=5, answered=1)
    for _ in range(2):
        assert status(well)[0] == DiagnosticStatus.OK


def test_latched_or_not_as_its_publishers_are(here):
    """The driver comes after the node, and comes back as one that does not latch."""
    image, _ = picture_and_info(1, 0.0)

    def heard(focal_px: float, qos: QoSProfile) -> bool:
        driver = rclpy.create_node('driver')
        infos = driver.create_publisher(CameraInfo, 'here/camera_info', qos)
        infos.publish(picture_and_info(1, focal_px)[1])
        for _ in range(300):
            here.camera.check_topics()
            rclpy.spin_once(here.node, timeout_sec=0.05)
            if here.focal_px(image) == focal_px:
                break
            if qos is not LATCHED:
                infos.publish(picture_and_info(1, focal_px)[1])
        driver.destroy_node()
        return here.focal_px(image) == focal_px

    assert heard(100.0, LATCHED)
    assert heard(110.0, LATCHED)
    assert heard(120.0, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))


def test_an_image_without_a_publisher_of_camera_info_waits_for_none(here):
    here.on_image(picture_and_info(1, 100.0)[0])
    assert len(here.taken) == 1
    assert here.is_ready()


def test_an_image_waits_for_a_published_camera_info_but_not_for_long(here, monkeypatch):
    publisher = here.node.create_publisher(CameraInfo, 'here/camera_info', 5)
    while not here.node.count_publishers(publisher.topic_name):
        rclpy.spin_once(here.node, timeout_sec=0.01)
    clock = Clock()
    monkeypatch.setattr(camera, 'monotonic', clock.monotonic)
    image, info = picture_and_info(1, 100.0)
    for _ in range(2):
        here.on_image(image)  # the second one puts it off no further
        assert not here.is_ready()
        clock.advance(0.6)
    assert here.is_ready()
    assert here.focal_px(image) is None

    here.camera.unsubscribe()
    here.camera.subscribe(here.taken.append)  # activated again
    calls = {one.topic_name: one.callback for one in here.node.subscriptions}
    calls['/here/image'](image)
    assert not here.is_ready()
    calls['/here/camera_info'](info)
    assert here.is_ready()
    assert here.focal_px(image) == 100
