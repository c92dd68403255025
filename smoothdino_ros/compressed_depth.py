# SPDX-License-Identifier: Apache-2.0
"""Depth for a slow link: depth/image/compressedDepth, in a thread of its own.

The subscriber plugin compressed_depth of image_transport reads it. Packing takes longer than
publishing, so the newest depth waits for the thread in a slot, and takes the place of one that
waits there still.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from smoothdino_model.recordings.depth_images import compressed_depth
from smoothdino_ros.parameters import NodeParameters
from smoothdino_ros.topics import watched_publisher


class CompressedDepth:
    """`offer` depth from any thread until `destroy`; nobody waits for it to be packed."""

    def __init__(self, node: LifecycleNode, depth_topic: str) -> None:
        self.dropped = 0  # for a later one
        self._node = node
        self._publisher = watched_publisher(
            node, CompressedImage, f'{depth_topic}/compressedDepth'
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix='compressed_depth')
        self._changing = threading.Lock()
        self._waiting: tuple[np.ndarray, Header, NodeParameters] | None = None

    def wanted(self) -> bool:
        return self._publisher.get_subscription_count() > 0

    def offer(self, depth_m: np.ndarray, header: Header, settings: NodeParameters) -> None:
        """(H, W) float32 metres, which nobody changes from here on."""
        with self._changing:
            if self._waiting is None:
                self._thread.submit(self._pack_and_publish)
            else:
                self.dropped += 1
            self._waiting = depth_m, header, settings

    def destroy(self) -> None:
        """Let what is being packed be published, leave what waits."""
        self._thread.shutdown(cancel_futures=True)
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _pack_and_publish(self) -> None:
        with self._changing:
            waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        depth_m, header, p = waiting
        try:
            form, data = compressed_depth(
                depth_m,
                encoding=p.depth_encoding,
                kind=p.compressed_depth_format,
                png_level=p.compressed_depth_png_level,
                min_depth_m=p.min_depth_m,
                max_depth_m=p.max_depth_m,
            )
            message = CompressedImage(header=header, format=form)
            message.data = data  # not through the constructor, which copies it
            self._publisher.publish(message)
        except Exception as error:  # such as a MemoryError, which costs this one
            self._node.get_logger().warning(
                f'Dropped a compressed depth: {type(error).__name__}: {error}',
                throttle_duration_sec=5.0,
            )
