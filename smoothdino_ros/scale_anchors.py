# SPDX-License-Identifier: Apache-2.0
"""What anchors the scale of a camera's depth: made for each frame, told of and judged after it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Vector3, Vector3Stamped
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Imu, LaserScan, PointCloud2, Range
from std_msgs.msg import Header

from smoothdino_model.recordings.calibration import Calibration
from smoothdino_model.recordings.frames import stamp_ns_of
from smoothdino_model.scale.measurement import Measurement
from smoothdino_model.scale.sensors import Anchor, Sensors
from smoothdino_ros.anchor_watch import AnchorWatch
from smoothdino_ros.parameters import NodeParameters
from smoothdino_ros.tf_listener import TfListener
from smoothdino_ros.topics import WatchedSubscription, watched_publisher

try:
    from nav_msgs.msg import Odometry
except ImportError:
    Odometry = None

if TYPE_CHECKING:
    from smoothdino_model.pipeline import DepthResult

_TYPES = {'scan': LaserScan, 'range': Range, 'points': PointCloud2, 'imu': Imu}  # by topic
if Odometry is not None:
    _TYPES['odometry'] = Odometry


class ScaleAnchors:
    """The anchors of a camera, and the topic that tells of its scale; without any it does nothing.

    `of` and `follow` are for the worker's thread, the rest for the executor's.
    """

    def __init__(
        self, node: LifecycleNode, prefix: str, settings: NodeParameters, tf: TfListener
    ) -> None:
        self._node, self._prefix = node, prefix
        self._names = anchors = settings.anchors
        self._topics = {name: f'scale_anchor {name}' for name in anchors if name in _TYPES}
        if 'floor' in anchors and settings.tilt_by_imu:
            self._topics['imu'] = 'scale_anchor floor, tilt_by_imu'
        self._sensors = Sensors(anchors, tf.between)
        self._scale = (
            watched_publisher(node, Vector3Stamped, f'{prefix}depth/scale') if anchors else None
        )
        self._watch = AnchorWatch(anchors)

    def subscribe(self) -> list[WatchedSubscription]:
        """Hear the sensors, from now on; the subscriptions are the caller's."""
        self._sensors.forget()
        if 'odometry' in self._names and Odometry is None:
            self._node.get_logger().error(
                'scale_anchor odometry needs the package nav_msgs, which is not installed: '
                'nothing comes of it until it is (apt install ros-$ROS_DISTRO-nav-msgs, or '
                'ros-jazzy-nav-msgs from PyPI).',
                once=True,
            )
        return [
            WatchedSubscription(
                self._node,
                _TYPES[name],
                self._prefix + name,
                partial(self._sensors.take, name),
                without=f'it does not tell the scale of depth ({parameter})',
            )
            for name, parameter in self._topics.items()
        ]

    def forget(self) -> None:
        self._watch = AnchorWatch(self._names)

    def destroy(self) -> None:
        if self._scale:
            self._node.destroy_lifecycle_publisher(self._scale)

    def wanted(self) -> bool:
        return self._scale is not None and self._scale.get_subscription_count() > 0

    def values(self, settings: NodeParameters) -> Mapping[str, str]:
        """What the anchors have said, for /diagnostics."""
        values = dict(self._watch.values()) if self._names else {}
        if 'floor' in self._names:
            floor = self._sensors.floor
            sources = dict.fromkeys((_source_of_height(settings), _source_of_tilt(settings)))
            by = f', by {", ".join(sources)}'
            values['floor'] = f'the camera is {floor.in_words()}{by}' if floor else ''
        return values

    def of(
        self, header: Header, calibration: Calibration, settings: NodeParameters, rgb: np.ndarray
    ) -> dict[str, Anchor]:
        """Give the anchors of a frame by their names; each says itself why it can say nothing."""
        return self._sensors.anchors(
            calibration.intrinsics, header.frame_id, stamp_ns_of(header), settings.mounting, rgb
        )

    def follow(self, header: Header, result: DepthResult, settings: NodeParameters) -> str:
        """Tell of a frame's scale; say which anchor has contradicted the network, '' for none."""
        if result.reset is not None:
            self.forget()
        lasting = self._watch.see(stamp_ns_of(header), result, most=settings.scale_warn)
        if self._scale and self.wanted():
            state = result.anchored
            self._scale.publish(
                Vector3Stamped(
                    header=header,
                    vector=Vector3(
                        x=result.anchor_scale,
                        y=state.spread if state else np.inf,
                        z=self._watch.age_s,
                    ),
                )
            )
        return ' '.join(_contradiction(name, one, settings) for name, one in lasting.items())


def _contradiction(name: str, measured: Measurement, p: NodeParameters) -> str:
    known_m, seen_m = measured.known_m, measured.known_m / measured.scale
    if name == 'floor':
        return (
            f'The floor contradicts the network: by {_source_of_height(p)} the camera is '
            f'{known_m:.2f} m over it, by the depth of the network {seen_m:.2f} m. Measure from '
            'the floor to the middle of the lens; if that is right, so is the depth, and '
            'scale_warn may be raised.'
        )
    if name == 'odometry':
        return (
            f'The odometry contradicts the network: by the way that the camera has gone, things '
            f'are {known_m:.2f} m ahead that are {seen_m:.2f} m away by the depth of the network. '
            'See whether a metre of the odometry is one; if that is right, so is the depth, and '
            'scale_warn may be raised.'
        )
    return (
        f'The {name} contradicts the network: it sees things {known_m:.2f} m ahead that are '
        f'{seen_m:.2f} m away by the depth of the network. See whether they stand where TF or '
        f'{name}_pose says; if that is right, so is the depth, and scale_warn may be raised.'
    )


def _source_of_height(p: NodeParameters) -> str:
    return 'camera_height_m' if p.camera_height_m else f'TF from {p.base_frame}'


def _source_of_tilt(p: NodeParameters) -> str:
    if p.tilt_by_imu:
        return 'imu'
    return f'TF from {p.base_frame}' if p.base_frame else 'camera_pitch_deg and camera_roll_deg'
