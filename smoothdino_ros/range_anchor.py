# SPDX-License-Identifier: Apache-2.0
"""The scale of depth by another sensor: its message nearest to an image, taken into the camera."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import LaserScan, PointCloud2, Range
from std_msgs.msg import Header

from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.measurement import Measurement
from smoothdino_model.scale.ranges import (
    cloud_points,
    cone_scale,
    mounted,
    moved,
    points_scale,
    range_points,
    scan_points,
)
from smoothdino_ros.conversions import stamp_ns
from smoothdino_ros.tf_listener import TfListener
from smoothdino_ros.topics import WatchedSubscription

if TYPE_CHECKING:
    from collections.abc import Callable

_WITHIN_NS = 250_000_000  # of the image: a robot at 1 m/s is elsewhere by then
# By the name of the anchor, which is that of its topic: type, how it becomes points, how these are
# compared, and how many of them wait for the image of their time.
_KINDS: dict[str, tuple[type, Callable, Callable, int]] = {
    'scan': (LaserScan, scan_points, points_scale, 64),
    'range': (Range, range_points, cone_scale, 64),
    'points': (PointCloud2, cloud_points, points_scale, 8),
}


class RangeAnchor:
    """One sensor of one camera. `of` is for the worker's thread, the rest for the executor's."""

    def __init__(self, node: LifecycleNode, prefix: str, name: str, tf: TfListener) -> None:
        self._node, self._topic, self._name, self._tf = node, prefix + name, name, tf
        self._kind, self._points, self._compare, self._kept = _KINDS[name]
        self._messages: tuple[Any, ...] = ()  # latest first; replaced whole

    def subscribe(self) -> WatchedSubscription:
        self._messages = ()
        without = f'it does not tell the scale of depth (scale_anchor {self._name})'
        return WatchedSubscription(
            self._node, self._kind, self._topic, self._take, without=without
        )

    def of(
        self, camera: Intrinsics, header: Header, pose: tuple[float, ...]
    ) -> Callable[[np.ndarray], Measurement]:
        """Give what measures the scale of an image's depth.

        pose is the sensor's in the camera, () where TF tells. Raises ValueError, in words, where
        there is nothing that could.
        """
        message = self._nearest(stamp_ns(header))
        if pose:
            camera_from_sensor = mounted(*pose)
        else:
            camera_from_sensor = self._tf.between(
                header.frame_id, message.header.frame_id, stamp_ns(header)
            )
        points_m = moved(self._points(message), camera_from_sensor)
        if not len(points_m):
            raise ValueError(f'the {self._name} sees nothing within its range')
        return partial(self._compare, camera=camera, points_m=points_m)

    def _take(self, message: Any) -> None:
        self._messages = (message, *self._messages[: self._kept - 1])

    def _nearest(self, at_ns: int) -> Any:
        messages = self._messages
        if not messages:
            raise ValueError(f'no {self._name} has come')
        nearest = min(messages, key=lambda one: abs(stamp_ns(one.header) - at_ns))
        apart_ns = at_ns - stamp_ns(nearest.header)
        if abs(apart_ns) > _WITHIN_NS:
            raise ValueError(
                f'the nearest {self._name} is {abs(apart_ns) / 1e9:.1f} s '
                f'{"older" if apart_ns > 0 else "younger"} than the image: do their clocks agree?'
            )
        return nearest
