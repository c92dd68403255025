# SPDX-License-Identifier: Apache-2.0
"""Single pictures shown to a node over DDS, and what its diagnostics say of them."""

import time

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from support.camera_process import camera_info, picture
from support.ros_processes import Observer, stamp_ns


class Camera:
    """A publisher of single pictures, and the node's answers to them."""

    def __init__(self, node, observer: Observer) -> None:
        self._node, self._observer = node, observer
        self._images = observer.node.create_publisher(Image, 'image', QoSProfile(depth=5))
        self._infos = observer.node.create_publisher(CameraInfo, 'camera_info', 5)

    def answered(self, rgb: np.ndarray, at_ns: int, *, within_s: float = 60.0) -> bool:
        """Whether the node answers this picture; it is shown again where DDS lost it."""
        header = Header(frame_id='camera', stamp=Time(sec=at_ns // 10**9, nanosec=at_ns % 10**9))
        self._observer.reliable.clear()
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self._images.get_subscription_count():
                self._infos.publish(camera_info(rgb))
                self._images.publish(picture(Image, rgb, header))
            if self._observer.wait_for(
                lambda: any(stamp_ns(one) == at_ns for one in self._observer.reliable), 2.0
            ):
                return True
            assert self._node.alive(), self._node.words()
        return False


def latest(observer: Observer, node: str = 'depth') -> tuple[DiagnosticStatus, dict[str, str]]:
    """The status of a node's only camera, as it is now."""
    observer.diagnostics.clear()
    assert observer.wait_for(lambda: len(diagnosed(observer, node)) >= 2)
    status = diagnosed(observer, node)[-1].status[-1]
    return status, {one.key: one.value for one in status.values}


def diagnosed(observer: Observer, node: str) -> list[DiagnosticArray]:
    return [one for one in observer.diagnostics if one.status[0].name == f'{node}: node']


def identity_holds(values: dict[str, str]) -> bool:
    """Each received image is in one of the outcomes; nothing waits once the cameras are quiet."""
    names = ('unwanted', 'dropped', 'overdue', 'rejected', 'failed', 'answered')
    return int(values['received']) == sum(int(values.get(name, 0)) for name in names)
