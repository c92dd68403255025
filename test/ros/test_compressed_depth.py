# SPDX-License-Identifier: Apache-2.0
"""Depth for a slow link, as a subscriber on the other side of DDS unpacks it."""

import struct
import threading

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from smoothdino_model.pipeline import CameraFrame, DepthResult
from smoothdino_model.recordings.depth_images import depth_m_of
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_ros.camera import Camera
from smoothdino_ros.inference_worker import Waiting
from smoothdino_ros.parameters import NodeParameters
from smoothdino_ros.tf_listener import TfListener
from support.camera_process import picture
from support.ros_processes import Observer, depth_node, stamp_ns

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('dds')]
TOPIC = 'depth/image/compressedDepth'


@pytest.fixture(scope='module')
def node(tiny_model_dir, tmp_path_factory, dds):
    with depth_node(
        tmp_path_factory.mktemp('node') / 'log.txt',
        *('-p', f'model:={tiny_model_dir}'),
        *('-p', 'max_depth_m:=60', '-p', 'diagnostics_period_s:=0.5'),
        *('-r', 'depth/image:=/link/depth'),  # which image_transport's names follow
    ) as process:
        yield process


class Viewer(Observer):
    """Sends pictures, and sees their depth raw and packed."""

    def __init__(self) -> None:
        super().__init__()
        self.raw: list[Image] = []
        self.packed: list[CompressedImage] = []
        for kind, topic, received in (
            (Image, '/link/depth', self.raw),
            (CompressedImage, '/link/depth/compressedDepth', self.packed),
        ):
            self.node.create_subscription(kind, topic, received.append, 20)
        self.images = self.node.create_publisher(Image, 'image', 5)
        self.room = SampleRoom(7, width=160, height=120)

    def show(self, stamps_s: range) -> None:
        """Each picture after the answer to the one before; then what is in the packer's hands."""
        self.raw.clear()
        self.packed.clear()
        for stamp_s in stamps_s:
            header = Header(frame_id='camera')
            header.stamp.sec = stamp_s
            self.images.publish(picture(Image, self.room.frame(stamp_s).rgb, header))
            assert self.wait_for(lambda at=header: self.raw and self.raw[-1].header == at)
        last = self.raw[-1].header
        assert self.wait_for(lambda: self.packed and self.packed[-1].header == last)

    def count(self, key: str) -> int:
        self.diagnostics.clear()
        assert self.wait_for(lambda: len(self.diagnostics) > 1)  # the first may be on its way
        return int({one.key: one.value for one in self.diagnostics[-1].status[1].values}[key])


@pytest.fixture(scope='module')
def viewer(node):
    one = Viewer()
    assert one.wait_for(lambda: one.state() == 'active', 200), node.words()
    assert one.wait_for(one.images.get_subscription_count)
    one.wait_until_known()
    yield one
    one.node.destroy_node()


@pytest.mark.parametrize('kind', ['png', 'rvl'])
@pytest.mark.parametrize('encoding', ['16UC1', '32FC1'])
def test_each_depth_is_packed_as_it_is_sent_raw(viewer, encoding, kind):
    assert not viewer.set(depth_encoding=encoding, compressed_depth_format=kind)
    viewer.show(range(1, 4))
    sent = {stamp_ns(one): one for one in viewer.raw}
    assert len(sent) == 3
    for one in viewer.packed:
        assert one.format == f'{encoding}; compressedDepth {kind}'
        depth_m, unpacked = depth_m_of(sent[stamp_ns(one)]), depth_m_of(one)
        assert one.header == sent[stamp_ns(one)].header
        assert np.isfinite(depth_m).any()
        if encoding == '16UC1':
            np.testing.assert_array_equal(unpacked, depth_m)
        else:
            known = np.isfinite(depth_m) & (depth_m > 0.16) & (depth_m < 60)
            np.testing.assert_array_equal(np.isfinite(unpacked[known]), True)
            error_m = unpacked[known] - depth_m[known]
            assert (np.abs(error_m) <= 1.01 * unpacked[known] ** 2 / 10100).all()


def test_opencv_alone_unpacks_the_png(viewer):
    assert not viewer.set(depth_encoding='16UC1', compressed_depth_format='png')
    sizes = []
    for level in (0, 9):
        assert not viewer.set(compressed_depth_png_level=level)
        viewer.show(range(1, 2))
        raw = bytes(viewer.packed[-1].data)
        assert struct.unpack('<iff', raw[:12]) == (0, 0.0, 0.0)
        stored = cv2.imdecode(np.frombuffer(raw[12:], np.uint8), cv2.IMREAD_UNCHANGED)
        assert (stored.dtype, stored.shape) == (np.uint16, (120, 160))
        assert stored.any()
        sizes.append(len(raw))
    assert sizes[1] < sizes[0]


def test_every_answer_is_packed_or_counted_as_dropped(viewer):
    before = viewer.count('answered') - viewer.count('dropped by compressedDepth')
    viewer.show(range(1, 11))
    after = viewer.count('answered') - viewer.count('dropped by compressedDepth')
    assert after - before == len(viewer.packed)


class Here:
    """A camera of an active node in this process."""

    def __init__(self) -> None:
        self.node = LifecycleNode('here')
        self.node.trigger_configure()
        settings = NodeParameters(compressed_depth_png_level=9)
        self.camera = Camera(self.node, 'here/', settings, TfListener(self.node, wanted=False))
        self.node.trigger_activate()
        self.packed: list[CompressedImage] = []

    def watch(self) -> None:
        self.node.create_subscription(CompressedImage, f'here/{TOPIC}', self.packed.append, 50)
        (publisher,) = [one for one in self.node.publishers if one.topic_name.endswith(TOPIC)]
        assert self.spin_until(publisher.get_subscription_count)

    def spin_until(self, condition) -> bool:
        for _ in range(2000):
            if condition():
                return True
            rclpy.spin_once(self.node, timeout_sec=0.01)
        return False

    def publish(self, depth_m: np.ndarray, stamp_s: int) -> None:
        header = Header(frame_id='camera')
        header.stamp.sec = stamp_s
        image = picture(Image, np.zeros((*depth_m.shape, 3), np.uint8), header)
        waiting = Waiting(image, stamp_s * 10**9, 0.0)
        frame = self.camera.read(waiting)
        assert isinstance(frame, CameraFrame)
        self.camera.publish(waiting, frame, DepthResult(depth_m, (0.0, 0.0), 0.0, None, 1.0))


@pytest.fixture
def here(dds):
    one = Here()
    yield one
    one.camera.destroy()
    one.node.destroy_node()


def packers() -> int:
    return sum(one.name.startswith('compressed_depth') for one in threading.enumerate())


def test_without_a_subscriber_there_is_not_even_a_thread_that_packs(here):
    depth_m = np.full((48, 64), 2.0, np.float32)
    here.publish(depth_m, 1)
    assert not here.camera.wanted()
    assert packers() == 0
    here.watch()
    assert here.camera.wanted()
    here.publish(depth_m, 2)
    assert packers() == 1
    assert here.spin_until(lambda: here.packed)
    assert [one.header.stamp.sec for one in here.packed] == [2]
    here.camera.destroy()
    assert packers() == 0


def test_a_camera_faster_than_the_packing_waits_for_none_and_ends_with_the_newest(here):
    here.watch()
    depth_m = np.random.default_rng(0).uniform(1, 9, (1080, 1920)).astype(np.float32)
    for stamp_s in range(1, 21):
        here.publish(depth_m, stamp_s)
    assert not here.packed  # the first is in work still
    assert here.spin_until(lambda: here.packed and here.packed[-1].header.stamp.sec == 20)
    assert here.camera._tracking.compressed_dropped > 0
    stamps_s = [one.header.stamp.sec for one in here.packed]
    assert stamps_s == sorted(stamps_s)
    assert len(stamps_s) == 20 - here.camera._tracking.compressed_dropped
