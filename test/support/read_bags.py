# SPDX-License-Identifier: Apache-2.0
"""Bags of depth as rosbags reads them."""

import numpy as np
import yaml
from rosbags.highlevel import AnyReader


def read(path):
    """[(topic, time of receipt, message)] in the order of the bag."""
    with AnyReader([path]) as reader:
        return [
            (connection.topic, at_ns, reader.deserialize(raw, connection.msgtype))
            for connection, at_ns, raw in reader.messages()
        ]


def images(path):
    return [message for topic, _, message in read(path) if topic == '/depth/image']


def custom_data(path) -> dict[str, str]:
    """What the metadata of a bag say besides."""
    metadata = yaml.safe_load((path / 'metadata.yaml').read_text())
    return metadata['rosbag2_bagfile_information']['custom_data']


def stamp_ns(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def depth_of(message) -> np.ndarray:
    kind = {'32FC1': np.float32, '16UC1': np.uint16}[message.encoding]
    assert message.step == message.width * np.dtype(kind).itemsize
    return message.data.view(kind).reshape(message.height, message.width)
