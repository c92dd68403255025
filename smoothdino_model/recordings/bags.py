# SPDX-License-Identifier: Apache-2.0
"""Rosbags of ROS 1 and ROS 2, read without ROS. Opened through open.open_recording."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.calibration import (
    NO_INFO,
    Calibration,
    calibrated,
    is_rectified,
)
from smoothdino_model.recordings.cut_mcap import CutMcap, lacks_its_end
from smoothdino_model.recordings.depth_images import depth_m_of
from smoothdino_model.recordings.frames import (
    Frame,
    Recording,
    RecordingError,
    UniqueNames,
)
from smoothdino_model.recordings.images import carries_picture, rgb_of

_log = logging.getLogger(__name__)

_UNSCALED = 'its lens is taken for the one that the model was trained with'
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
    bit_depth: BitDepth  # of the recording

    @property
    def stamp_ns(self) -> int:
        """The header's stamp or, where that is 0, the time of receipt."""
        stamp = self.message.header.stamp
        return stamp.sec * 1_000_000_000 + stamp.nanosec or self.received_ns

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8 of an image. Raises RecordingError, naming it, where it is broken."""
        return self._decoded(lambda message: rgb_of(message, self.bit_depth))

    def depth_m(self) -> np.ndarray:
        """(H, W) float32 metres of a depth image, NaN where unknown. Raises RecordingError."""
        return self._decoded(depth_m_of)

    def _decoded(self, decode: Callable[[Any], np.ndarray]) -> np.ndarray:
        try:
            return decode(self.message)
        except ValueError as error:
            raise RecordingError(
                f'the image at {self.stamp_ns} ns on {self.topic} in {self.bag} cannot be '
                f'read: {error}'
            ) from error


class RecordedInfos:
    """Every camera_info of a bag; those that say the same are kept once."""

    def __init__(self, received: Iterable[Received]) -> None:
        same: dict[bytes, Any] = {}
        self._by_stamp: dict[int, Any] = {}
        self._received_ns: list[int] = []
        self._infos: list[Any] = []
        for one in received:
            info = same.setdefault(_content(one.message), one.message)
            self._by_stamp.setdefault(one.stamp_ns, info)
            self._received_ns.append(one.received_ns)
            self._infos.append(info)

    def of(self, image: Received) -> list[Any]:
        """Give the one that counts for an image, in a list; an empty one where there is none."""
        if not self._infos:
            return []
        own = self._by_stamp.get(image.stamp_ns)
        if own is not None:
            return [own]
        before = bisect.bisect_right(self._received_ns, image.received_ns)
        return [self._infos[max(before - 1, 0)]]


def _content(info: Any) -> bytes:
    roi = info.roi
    numbers = (info.height, info.width, info.binning_x, info.binning_y)
    region = (roi.x_offset, roi.y_offset, roi.height, roi.width)
    arrays = [np.asarray(one, float).tobytes() for one in (info.d, info.k, info.p)]
    return repr((*numbers, *region, info.distortion_model)).encode() + b''.join(arrays)


class BagRecording(Recording):
    """The images of one topic of a ROS 1 or ROS 2 bag, with their camera_info.

    info_topic is by default the camera_info beside the images; bit_depth is as in BitDepth, found
    anew in each pass. An mcap file without its end, as a recorder leaves it that was killed, gives
    what is whole in it, with a warning; ``cut`` then says in words what is lost.
    """

    kind = 'bag'

    def __init__(
        self,
        path: Path,
        topic: str | None,
        info_topic: str | None = None,
        *,
        bit_depth: int = 0,
    ) -> None:
        self._path = path
        self._bits = bit_depth
        self.cut: str | None = None
        self._recorded: RecordedInfos | None = None  # read when first asked for
        self._said: set[str] = set()
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
        for received in self.messages():
            if received.msgtype == CAMERA_INFO:
                continue
            rgb, stamp_ns = received.rgb(), received.stamp_ns
            calibration = self.calibrated(received, *rgb.shape[:2])
            yield Frame(unique(str(stamp_ns)), stamp_ns, rgb, calibration.intrinsics)

    def messages(self) -> Iterator[Received]:
        """The images and their camera_info in order of receipt, not yet decoded."""
        return self._messages(self._images + self._infos)

    def calibrated(self, image: Received, height: int, width: int) -> Calibration:
        """Calibrate an image of (height, width) by the camera_info of its stamp.

        That counts whether it was recorded before the image or after it; where there is none, the
        latest one that had been received, else the first. What is wrong is logged, once.
        """
        if self._recorded is None:
            self._recorded = RecordedInfos(self._up_to_damage(self._infos))
        rectified = is_rectified(image.topic)
        found = calibrated(
            self._recorded.of(image),
            image.message.header,
            height=height,
            width=width,
            rectified=rectified,
        )
        if found.distorted:
            self._warn_once(f'{image.topic} is not rectified: depth is off towards the edges')
        if found.fault == NO_INFO:
            self._warn_once(f'no camera_info for {image.topic}: {_UNSCALED}')
        elif found.fault:
            self._warn_once(
                f'the camera_info of {image.topic} is of no use: {found.fault}; {_UNSCALED}'
            )
        return found

    def _warn_once(self, text: str) -> None:
        self._say_once(text, logging.WARNING)

    def _say_once(self, text: str, level: int = logging.INFO) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.log(level, '%s', text)

    def _up_to_damage(self, connections: list[Connection]) -> Iterator[Received]:
        if connections:
            with contextlib.suppress(RecordingError):  # said where the images are read
                yield from self._messages(connections)

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
        bit_depth = BitDepth(self._bits, self._say_once)
        try:
            for connection, received_ns, raw in self._reader.messages(connections):
                message = self._reader.deserialize(raw, connection.msgtype)
                if not self._reader.is2:
                    message = _as_ros2(message)
                yield Received(
                    self._path,
                    connection.topic,
                    connection.msgtype,
                    received_ns,
                    message,
                    bit_depth,
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
        return first is not None and carries_picture(first.message)


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
