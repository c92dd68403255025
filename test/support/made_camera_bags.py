# SPDX-License-Identifier: Apache-2.0
"""Bags of a depth camera: colour and depth of any kind, at any stamp."""

import struct

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from support.made_recordings import START_NS, camera_info

COLOUR, DEPTH = '/cam/image_raw', '/cam/depth'
HEIGHT, WIDTH = 48, 64
PERIOD_NS = 33_333_333


def picture(i):
    return np.full((HEIGHT, WIDTH, 3), 10 + 7 * i % 200, np.uint8)


def depth_of(i, height=HEIGHT, width=WIDTH):
    """Metres, to the millimetre: i / 10 and more to the right; the first row is unknown."""
    depth_m = np.tile((i * 100 + np.arange(width) * 10 + 500) / 1000, (height, 1))
    depth_m[0] = np.nan
    return depth_m.astype(np.float32)


def as_16uc1(depth_m):
    return np.nan_to_num(np.round(depth_m * 1000)).astype(np.uint16)


def quantised(depth_m, quantization=100.0, most_m=10.0):
    """As compressed_depth_image_transport quantises 32FC1 by default: a PNG of a / depth + b."""
    a = quantization * (quantization + 1)
    b = 1 - a / most_m
    stored = np.nan_to_num(np.round(a / depth_m + b)).astype(np.uint16)
    return struct.pack('<iff', 0, a, b) + cv2.imencode('.png', stored)[1].tobytes()


class Bag:
    """Writes messages of one bag: colour and depth of any kind, at any stamp."""

    def __init__(self, path, storage='mcap'):
        self.ros1 = storage == 'ros1'
        self.store = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_HUMBLE)
        self.writer = (
            Writer1(path)
            if self.ros1
            else Writer2(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
        )
        self.connections = {}

    def __enter__(self):
        self.writer.open()
        return self

    def __exit__(self, *_):
        self.writer.close()

    def _write(self, topic, kind, stamp_ns, build, received_ns=None):
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(
                topic, f'sensor_msgs/msg/{kind}', typestore=self.store
            )
        types = self.store.types
        stamp = types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
        sequence = {'seq': 0} if self.ros1 else {}
        header = types['std_msgs/msg/Header'](stamp=stamp, frame_id='cam', **sequence)
        message = build(types, header)
        encode = self.store.serialize_ros1 if self.ros1 else self.store.serialize_cdr
        raw = encode(message, f'sensor_msgs/msg/{kind}')
        self.writer.write(self.connections[topic], received_ns or stamp_ns + 7, raw)

    def image(self, topic, stamp_ns, pixels, encoding):
        height, width = pixels.shape[:2]
        data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
        self._write(
            topic,
            'Image',
            stamp_ns,
            lambda types, header: types['sensor_msgs/msg/Image'](
                header, height, width, encoding, 0, data.size // height, data
            ),
        )

    def compressed(self, topic, stamp_ns, data, form, received_ns=None):
        self._write(
            topic,
            'CompressedImage',
            stamp_ns,
            lambda types, header: types['sensor_msgs/msg/CompressedImage'](
                header, form, np.frombuffer(bytes(data), np.uint8)
            ),
            received_ns,
        )

    def camera_info(self, topic, stamp_ns, height=HEIGHT, width=WIDTH):
        self._write(
            topic,
            'CameraInfo',
            stamp_ns,
            lambda types, header: camera_info(types, header, height, width, self.ros1),
        )


def write_plain(path, count=8, storage='mcap', height=HEIGHT, width=WIDTH):
    """Raw colour and 16UC1 depth, 5 ms apart, with camera_info."""
    with Bag(path, storage) as bag:
        for i in range(count):
            stamp_ns = START_NS + i * PERIOD_NS
            bag.camera_info('/cam/camera_info', stamp_ns)
            bag.image(COLOUR, stamp_ns, picture(i), 'rgb8')
            bag.image(DEPTH, stamp_ns + 5_000_000, as_16uc1(depth_of(i, height, width)), '16UC1')
    return path
