# SPDX-License-Identifier: Apache-2.0
"""Rosbags of ROS 1 and ROS 2, read without ROS. Opened through recordings.open_recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from smoothdino_model.images import rgb_from_bytes, rgb_from_compressed
from smoothdino_model.recordings import Frame, Intrinsics, Recording, RecordingError, UniqueNames

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'


class BagRecording(Recording):
    """The images of one topic of a ROS 1 or ROS 2 bag, with the camera_info beside them.

    The stamp is the header's or, where that is 0, the time at which the bag received it.
    """

    kind = 'bag'

    def __init__(self, path: Path, topic: str | None) -> None:
        self._path = path
        if path.is_dir() and path.suffix == '.bag':  # rosbags takes the ending for ROS 1
            raise RecordingError(
                f'expected a rosbag folder whose name does not end in .bag, got {path}: rename it'
            )
        try:  # the definitions of these messages have not changed; older bags carry none
            self._reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            self._reader.open()
        except Exception as error:  # damage shows as sqlite3, struct, yaml, key errors and more
            raise RecordingError(f'{path} cannot be read as a rosbag: {error}') from None
        try:
            self._images = self._connections(topic)
        except BaseException:
            self.close()
            raise
        base = self._images[0].topic.removesuffix('/compressed')
        info_topic = base.rpartition('/')[0] + '/camera_info'
        self._infos = [
            c
            for c in self._reader.connections
            if c.topic == info_topic and c.msgtype == CAMERA_INFO
        ]

    def __len__(self) -> int:
        return sum(c.msgcount for c in self._images)

    def close(self) -> None:
        if self._reader.stack:
            self._reader.close()

    def __iter__(self) -> Iterator[Frame]:
        unique = UniqueNames()
        info = next((m for _, _, m in self._messages(self._infos)), None) if self._infos else None
        for connection, received_ns, message in self._messages(self._images + self._infos):
            if connection.msgtype == CAMERA_INFO:
                info = message
                continue
            stamp = message.header.stamp
            stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec or received_ns
            try:
                rgb = _rgb_of(message, connection.msgtype)
            except ValueError as error:
                raise RecordingError(
                    f'the image at {stamp_ns} ns on {connection.topic} in {self._path} cannot '
                    f'be read: {error}'
                ) from None
            yield Frame(unique(str(stamp_ns)), stamp_ns, rgb, _intrinsics_of(info, rgb))

    def _messages(self, connections: list[Connection]) -> Iterator[tuple[Connection, int, Any]]:
        try:
            for connection, received_ns, raw in self._reader.messages(connections):
                yield connection, received_ns, self._reader.deserialize(raw, connection.msgtype)
        except RecordingError:
            raise
        except Exception as error:  # as above
            raise RecordingError(f'{self._path} is damaged: {error}') from None

    def _connections(self, topic: str | None) -> list[Connection]:
        """The connections of the topic, or of the only one that holds colour pictures."""
        images = [c for c in self._reader.connections if c.msgtype in (IMAGE, COMPRESSED)]
        topics = {c.topic: c.msgtype for c in images}
        listed = ', '.join(f'{name} ({kind})' for name, kind in sorted(topics.items())) or 'none'
        if topic is None:
            colour = [t for t in topics if self._has_colour([c for c in images if c.topic == t])]
            if len(colour) != 1:
                raise RecordingError(
                    f'expected one topic with colour images in {self._path}, got {len(colour)}: '
                    f'name one with --topic (topic=) of: {listed}'
                )
            topic = colour[0]
        if topic not in topics:
            raise RecordingError(
                f'expected a topic with images in {self._path}, got {topic}: there are {listed}'
            )
        return [c for c in images if c.topic == topic]

    def _has_colour(self, connections: list[Connection]) -> bool:
        first = next(self._messages(connections), None)
        if first is None:
            return False
        message = first[2]
        if connections[0].msgtype == COMPRESSED:
            return 'compressedDepth' not in message.format
        return message.encoding not in ('32FC1', '16UC1')


def _rgb_of(message: Any, msgtype: str) -> np.ndarray:
    if msgtype == COMPRESSED:
        return rgb_from_compressed(message.data)
    return rgb_from_bytes(
        message.data,
        encoding=message.encoding,
        height=message.height,
        width=message.width,
        step=message.step,
        is_bigendian=message.is_bigendian,
    )


def _intrinsics_of(info: Any, rgb: np.ndarray) -> Intrinsics | None:
    """None where the camera is not calibrated (fx is 0)."""
    if info is None:
        return None
    k = info.k if hasattr(info, 'k') else info.K  # ROS 2, ROS 1
    height, width = rgb.shape[:2]
    return Intrinsics.from_k(k, info.width or width, info.height or height) if k[0] else None
