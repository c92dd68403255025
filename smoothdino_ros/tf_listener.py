# SPDX-License-Identifier: Apache-2.0
"""The topics /tf and /tf_static, heard for the one chain of frames that a camera asks for."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from smoothdino_model.scale.transforms import Transforms

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # ROS from PyPI has none
    TFMessage = None

# As tf2_ros has them: what is static is latched by several publishers.
_STATIC = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_MOVING = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.BEST_EFFORT
)


class TfListener:
    """Hears /tf_static, if wanted, and /tf only once that has not sufficed: it is the busiest.

    `between` may be called from any thread, the rest from the executor's.
    """

    def __init__(self, node: LifecycleNode, *, wanted: bool) -> None:
        self._node, self._transforms = node, Transforms()
        self._subscriptions: list[Any] = []
        self._wanted = self._moving = False
        if wanted and TFMessage is not None:
            self._listen('/tf_static', _STATIC, static=True)

    def between(self, target: str, source: str, at_ns: int) -> np.ndarray:
        """Give target_from_source (4, 4); raises ValueError, in words, where it is not known."""
        if TFMessage is None:
            raise ValueError(
                'there is no TF here (the package tf2_msgs is not installed): give the numbers by '
                'parameters'
            )
        try:
            return self._transforms.between(target, source, at_ns)
        except ValueError:
            self._wanted = True
            raise

    def follow(self) -> None:
        """Listen to what moves, once it has been missed."""
        if self._wanted and not self._moving:
            self._moving = True
            self._listen('/tf', _MOVING, static=False)

    def destroy(self) -> None:
        for one in self._subscriptions:
            self._node.destroy_subscription(one)

    def _listen(self, topic: str, qos: QoSProfile, *, static: bool) -> None:
        take = partial(self._transforms.take, static=static)
        self._subscriptions.append(self._node.create_subscription(TFMessage, topic, take, qos))
