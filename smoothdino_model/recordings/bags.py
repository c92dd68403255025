# SPDX-License-Identifier: Apache-2.0
"""Rosbags of ROS 1 and ROS 2, read without ROS. Opened through recordings.open_recording."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from smoothdino_model.recordings.cut_mcap import CutMcap, lacks_its_end
from smoothdino_model.recordings.depth_images import depth_m_from_bytes, depth_m_from_compressed
from smoothdino_model.recordings.frames import (
    Frame,
    Intrinsics,
    Recording,
    RecordingError,
    UniqueNames,
)
from smoothdino_model.recordings.image_bytes import image_fields
from smoothdino_model.recordings.images import rgb_from_bytes, rgb_from_compressed

_log = logging.getLogger(__name__)

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
TYPES = get_typestore(Stores.ROS2_HUMBLE)  # those of sensor_msgs are the same in all of ROS 2


@dataclass(frozen=True, eq=False)
class Received:
    """A message of a bag, as its ROS 2 type, and when the recorder received it."""

    bag: Path
    topic: str
    msgtype: str
    received_ns: int
    message: Any

    @property
    def stamp_ns(self) -> int:
        """The header's stamp or, where that is 0, the time of receipt."""
        stamp = self.message.header.stamp
        return stamp.sec * 1_000_000_000 + stamp.nanosec or self.received_ns

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8 of an image. Raises RecordingError, naming it, where it is broken."""
        return self._decoded(rgb_from_bytes, lambda m: rgb_from_compressed(m.data))

    def depth_m(self) -> np.ndarray:
        """(H, W) float32 metres of a depth image, NaN where unknown. Raises RecordingError."""
        return self._decoded(
            depth_m_from_bytes, lambda m: depth_m_from_compressed(m.data, form=m.format)
        )

    def _decoded(
        self, raw: Callable[..., np.ndarray], compressed: Callable[[Any], np.ndarray]
    ) -> np.ndarray:
        try:
            if self.msgtype == COMPRESSED:
                return compressed(self.message)
            return raw(**image_fields(self.message))
        except ValueError as error:
            raise RecordingError(
                f'the image at {self.stamp_ns} ns on {self.topic} in {self.bag} cannot be '
                f'read: {error}'
            ) from None


class BagRecording(Recording):
    """The images of one topic of a ROS 1 or ROS 2 bag, with their camera_info.

    info_topic is by default the camera_info beside the images. An mcap file without its end, as a
    recorder leaves it that was killed, gives what is whole in it, with a warning; ``cut`` then
    says in words what is lost.
    """

    kind = 'bag'

    def __init__(self, path: Path, topic: str | None, info_topic: str | None = None) -> None:
        self._path = path
        self.cut: str | None = None
        if path.is_dir() and path.suffix == '.bag':  # rosbags takes the ending for ROS 1
            raise RecordingError(
                f'expected a rosbag folder whose name does not end in .bag, got {path}: rename it'
            )
        try:  # older bags carry no definitions of their messages
            self._reader = AnyReader(self._files(), default_typestore=TYPES)
            self._reader.open()
        except Exception as error:  # damage shows as sqlite3, struct, yaml, key errors and more
            raise RecordingError(f'{path} cannot be read as a rosbag: {error}') from None
        if self.cut:
            _log.warning('%s', self.cut)
        try:
            readers = self._reader.readers
            half = len(readers) // 2 if self.cut else len(readers)  # see _files
            self._images = self._image_connections(topic, _connections(readers[:half]))
            self._infos = self._info_connections(info_topic, _connections(readers[-half:]))
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return sum(c.msgcount for c in self._images)

    def close(self) -> None:
        if self._reader.stack:
            self._reader.close()

    def __iter__(self) -> Iterator[Frame]:
        unique = UniqueNames()
        info = self.first_info()
        for received in self.messages():
            if received.msgtype == CAMERA_INFO:
                info = received.message
                continue
            rgb, stamp_ns = received.rgb(), received.stamp_ns
            yield Frame(unique(str(stamp_ns)), stamp_ns, rgb, _intrinsics_of(info, rgb))

    def messages(self) -> Iterator[Received]:
        """The images and their camera_info in order of receipt, not yet decoded."""
        return self._messages(self._images + self._infos)

    def first_info(self) -> Any:
        """The first camera_info, which also counts for images before it; None without one."""
        first = next(self._messages(self._infos), None) if self._infos else None
        return first.message if first else None

    def _files(self) -> list[Any]:
        """What rosbags is to read: the path itself, or its mcap files if one of them is cut.

        These then twice, once for each topic: rosbags reads a file without an index only in its
        order, in which the messages of two topics may be a little out of the order of time.
        """
        files = sorted(self._path.glob('*.mcap')) if self._path.is_dir() else [self._path]
        mended = [CutMcap(f) if f.suffix == '.mcap' and lacks_its_end(f) else f for f in files]
        cut = [f for f in mended if isinstance(f, CutMcap)]
        if not cut:
            return [self._path]
        self.cut = '; '.join(f'{f} is cut short: {f.loss()}' for f in cut)
        return mended + mended

    def _messages(self, connections: list[Connection]) -> Iterator[Received]:
        try:
            for connection, received_ns, raw in self._reader.messages(connections):
                message = self._reader.deserialize(raw, connection.msgtype)
                if not self._reader.is2:
                    message = _as_ros2(message)
                yield Received(
                    self._path, connection.topic, connection.msgtype, received_ns, message
                )
        except RecordingError:
            raise
        except Exception as error:  # as above
            raise RecordingError(f'{self._path} is damaged: {error}') from None

    def _image_connections(self, topic: str | None, among: list[Connection]) -> list[Connection]:
        """The connections of the topic, or of the only one that holds colour pictures."""
        images = [c for c in among if c.msgtype in (IMAGE, COMPRESSED)]
        topics = {c.topic: c.msgtype for c in images}
        listed = ', '.join(f'{name} ({kind})' for name, kind in sorted(topics.items())) or 'none'
        if topic is None:
            colour = [t for t in topics if self._has_colour([c for c in images if c.topic == t])]
            if len(colour) != 1:
                raise RecordingError(
                    f'expected one topic with colour images in {self._path}, got {len(colour)}: '
                    f'name one (topic=, infer --topic, bag --image) of: {listed}'
                )
            topic = colour[0]
        if topic not in topics:
            raise RecordingError(
                f'expected a topic with images in {self._path}, got {topic}: there are {listed}'
            )
        return [c for c in images if c.topic == topic]

    def _info_connections(self, topic: str | None, among: list[Connection]) -> list[Connection]:
        infos = [c for c in among if c.msgtype == CAMERA_INFO]
        listed = ', '.join(sorted({c.topic for c in infos})) or 'none'
        if topic is not None and topic not in {c.topic for c in infos}:
            raise RecordingError(
                f'expected a topic with camera_info in {self._path}, got {topic}: there are '
                f'{listed}'
            )
        base = self._images[0].topic.removesuffix('/compressed')
        topic = topic or base.rpartition('/')[0] + '/camera_info'
        return [c for c in infos if c.topic == topic]

    def _has_colour(self, connections: list[Connection]) -> bool:
        first = next(self._messages(connections), None)
        if first is None:
            return False
        if first.msgtype == COMPRESSED:
            return 'compressedDepth' not in first.message.format
        return first.message.encoding not in ('32FC1', '16UC1')


def _connections(readers: Sequence[Any]) -> list[Connection]:
    return [connection for reader in readers for connection in reader.connections]


def _as_ros2(message: Any) -> Any:
    """A message of ROS 1 as the ROS 2 type of its name: without seq, and with k for K."""
    kind: Any = TYPES.types[message.__msgtype__]
    values = {}
    for field in dataclasses.fields(kind):
        if field.init and field.name != '__msgtype__':
            name = field.name if hasattr(message, field.name) else field.name.upper()
            value = getattr(message, name)
            values[field.name] = _as_ros2(value) if hasattr(value, '__msgtype__') else value
    return kind(**values)


def _intrinsics_of(info: Any, rgb: np.ndarray) -> Intrinsics | None:
    """None where the camera is not calibrated (fx is 0)."""
    if info is None or not info.k[0]:
        return None
    height, width = rgb.shape[:2]
    return Intrinsics.from_k(info.k, info.width or width, info.height or height)
