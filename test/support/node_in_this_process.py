# SPDX-License-Identifier: Apache-2.0
"""The node without an executor of its own: messages go through its callbacks one by one."""

import time

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from smoothdino_ros.depth_node import DepthNode
from support.camera_process import picture
from support.ros_processes import Observer

KINDS = {'raw': (Image, 'image'), 'compressed': (CompressedImage, 'image/compressed')}
GOOD = np.random.default_rng(1).integers(0, 256, (28, 42, 3), dtype=np.uint8)


class InThisProcess:
    """An active node whose callbacks are called as the executor would, and a viewer of it."""

    def __init__(self, model, transport: str) -> None:
        self.node = DepthNode()
        values = {'model': str(model), 'image_transport': transport, 'max_depth_m': 1000.0}
        self.node.set_parameters([Parameter(name, value=v) for name, v in values.items()])
        self.node.start()
        self.kind, topic = KINDS[transport]
        # The very functions that a message on the topic is given to.
        calls = {one.topic_name: one.callback for one in self.node.subscriptions}
        self._take_image, self._take_info = calls[f'/{topic}'], calls['/camera_info']
        self.viewer = Observer()
        for one, name in (
            (PointCloud2, 'depth/points'),
            (Image, 'depth/image_color'),
            (CompressedImage, 'depth/image/compressedDepth'),
        ):
            self.viewer.node.create_subscription(one, name, lambda _: None, 5)
        outputs = [one for one in self.node.publishers if one.topic_name.startswith('/depth/')]
        assert len(outputs) == 5
        assert self.viewer.wait_for(
            lambda: sum(one.get_subscription_count() for one in outputs) >= 6
        )

    def counts(self):
        return self.node._configured.worker.counts()['']

    def waiting(self) -> int:
        return self.counts().received - sum(outcomes(self.counts()).values())

    def send(self, message) -> str:
        """Give a message to its callback, as it comes out of DDS; what became of it."""
        before = outcomes(self.counts())
        self._take_image(over_the_wire(message))
        deadline = time.monotonic() + 20
        while self.waiting():
            assert time.monotonic() < deadline, 'the message is neither answered nor counted'
            time.sleep(0.0005)
        after = outcomes(self.counts())
        (outcome,) = [name for name in after if after[name] > before[name]]
        return outcome

    def send_info(self, info: CameraInfo) -> None:
        self._take_info(over_the_wire(info))

    def close(self) -> None:
        self.node.close()
        self.node.destroy_node()
        self.viewer.node.destroy_node()


def outcomes(counts) -> dict[str, int]:
    """Every received message is in one of these, or waits."""
    names = ('unwanted', 'dropped', 'overdue', 'rejected', 'failed', 'answered')
    return {name: getattr(counts, name) for name in names if hasattr(counts, name)}


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def good(kind, stamp_ns: int):
    sec, nanosec = divmod(stamp_ns, 10**9)
    return picture(kind, GOOD, Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id='camera'))
