# SPDX-License-Identifier: Apache-2.0
"""Rosbags of ROS 1 and ROS 2, read without ROS. Opened through open.open_recording."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from smoothdino_model.recordings.bag_files import BagFiles
from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.calibration import (
    NO_INFO,
    Calibration,
    calibrated,
    is_rectified,
)
from smoothdino_model.recordings.depth_images import depth_m_of
from smoothdino_model.recordings.frames import (
    Frame,
    Recording,
    RecordingError,
    UniqueNames,
    stamp_ns_of,
)
from smoothdino_model.recordings.images import carries_picture, rgb_of
from smoothdino_model.recordings.mcap_file import Channel

_log = logging.getLogger(__name__)

_UNSCALED = 'its lens is taken for the one that the model was trained with'
IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
# Types of sensor_msgs are the same in all of ROS 2, and in all of ROS 1.
TYPES, _ROS1_TYPES = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC)
# Pictures that are none for us, and what makes some of them.
_REPUBLISHED = {
    'ffmpeg_image_transport_msgs/msg/FFMPEGPacket': 'ffmpeg',
    'foxglove_msgs/msg/CompressedVideo': 'foxglove',
    'theora_image_transport/msg/Packet': 'theora',
}


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
        return stamp_ns_of(self.message.header) or self.received_ns

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
        self._recorded: RecordedInfos | None = None  # read when first asked for
        self._said: set[str] = set()
        self._doubted: set[str] = set()
        if path.is_dir() and path.suffix == '.bag':  # a name that is taken for ROS 1
            raise RecordingError(
                f'expected a rosbag folder whose name does not end in .bag, got {path}: rename it'
            )
        try:
            self._files = BagFiles(path)
        except Exception as error:  # damage shows as sqlite3, struct, zstd, key errors and more
            raise RecordingError(f'{path} cannot be read as a rosbag: {error}') from error
        self.cut = self._files.cut
        if self.cut:
            _log.warning('%s', self.cut)
        try:
            self._topic = self._image_topic(topic)
            self._info_topic = self._topic_of_infos(info_topic)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return sum(c.count for c in self._channels(self._topic))

    def close(self) -> None:
        self._files.close()

    def __iter__(self) -> Iterator[Frame]:
        unique = UniqueNames()
        for received in self.messages():
            if received.msgtype == CAMERA_INFO:
                continue
            rgb, stamp_ns = received.rgb(), received.stamp_ns
            calibration = self.calibrated(received, *rgb.shape[:2])
            yield Frame(
                unique(str(stamp_ns)),
                stamp_ns,
                rgb,
                calibration.intrinsics,
                frame_id=received.message.header.frame_id,
                received_ns=received.received_ns,
            )

    def messages(self) -> Iterator[Received]:
        """The images and their camera_info in order of receipt, not yet decoded.

        Behind the last one, ``lost`` is what is missing of the images that the bag counts.
        """
        self.lost = ()
        images = 0
        for received in self._messages((self._topic, self._info_topic)):
            images += received.topic == self._topic
            yield received
        counted = max(self._files.declared[self._topic], len(self))
        lost = [self.cut] if self.cut else []
        if images < counted:
            lost.append(
                f'{self._path} counts {counted} images of {self._topic}, and {images} could be '
                'read'
            )
            self._warn_once(lost[-1])
        self.lost = tuple(lost)

    def calibrated(self, image: Received, height: int, width: int) -> Calibration:
        """Calibrate an image of (height, width) by the camera_info of its stamp.

        That counts whether it was recorded before the image or after it; where there is none, the
        latest one that had been received, else the first. What is wrong or doubtful is logged,
        once, and stands in ``doubts``.
        """
        if self._recorded is None:
            self._recorded = RecordedInfos(self._up_to_damage(self._info_topic))
        rectified = is_rectified(image.topic)
        found = calibrated(
            self._recorded.of(image),
            image.message.header,
            height=height,
            width=width,
            rectified=rectified,
        )
        if found.distorted:
            self._doubt('lens', f'{image.topic} is not rectified: depth is off towards the edges')
        if found.fault == NO_INFO:
            self._doubt('none', f'no camera_info for {image.topic}: {_UNSCALED}')
        elif found.fault:
            self._doubt(
                'fault',
                f'the camera_info of {image.topic} is of no use: {found.fault}; {_UNSCALED}',
            )
        elif found.doubt:
            self._doubt('doubt', f'the camera_info of {image.topic} is doubtful: {found.doubt}')
        return found

    def _doubt(self, kind: str, text: str) -> None:
        if kind not in self._doubted:  # a lens that zooms has another text for each image
            self._doubted.add(kind)
            self.doubts += (text,)
            self._warn_once(text)

    def _warn_once(self, text: str) -> None:
        self._say_once(text, logging.WARNING)

    def _say_once(self, text: str, level: int = logging.INFO) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.log(level, '%s', text)

    def _up_to_damage(self, topic: str) -> Iterator[Received]:
        with contextlib.suppress(RecordingError):  # said where the images are read
            yield from self._messages((topic,))

    def _messages(self, topics: Collection[str]) -> Iterator[Received]:
        bit_depth = BitDepth(self._bits, self._say_once)
        try:
            for channel, received_ns, data in self._files.messages(topics):
                if not self._is_read(channel):
                    continue
                if self._files.is_ros1:
                    message = _as_ros2(_ROS1_TYPES.deserialize_ros1(data, channel.msgtype))
                else:
                    message = TYPES.deserialize_cdr(data, channel.msgtype)
                yield Received(
                    self._path, channel.topic, channel.msgtype, received_ns, message, bit_depth
                )
        except RecordingError:
            raise
        except Exception as error:  # as above
            raise RecordingError(f'{self._path} is damaged: {error}') from error

    def _is_read(self, channel: Channel) -> bool:
        encoding = 'ros1' if self._files.is_ros1 else 'cdr'
        return channel.msgtype in (IMAGE, COMPRESSED, CAMERA_INFO) and channel.encoding == encoding

    def _channels(self, topic: str | None = None, *kinds: str) -> list[Channel]:
        return [
            c
            for c in self._files.channels
            if topic in (None, c.topic) and c.msgtype in (kinds or (IMAGE, COMPRESSED))
            if self._is_read(c)
        ]

    def _image_topic(self, topic: str | None) -> str:
        """Check the topic, or find the only one that holds colour pictures."""
        topics = {c.topic: c.msgtype for c in self._channels()}
        if not topics:
            raise RecordingError(
                f'expected one topic with colour images in {self._path}, got none of '
                f'sensor_msgs/msg/Image or CompressedImage: {self._what_is_there()}'
            )
        listed = ', '.join(f'{name} ({kind})' for name, kind in sorted(topics.items()))
        if topic is None:
            colour = [one for one in topics if self._has_colour(one)]
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
        return topic

    def _what_is_there(self) -> str:
        """Name the topics of a bag without images, and what makes images of some of them."""
        channels = sorted(
            self._files.channels, key=lambda c: (c.msgtype not in _REPUBLISHED, c.topic)
        )
        if any(c.encoding == 'ros1' for c in channels):
            return 'its messages are of ROS 1: give the .bag that it was made of'
        named = [f'{c.topic} ({c.msgtype or c.encoding})' for c in channels]
        more = f' and {len(named) - 8} more' if len(named) > 8 else ''
        there = f'it holds {", ".join(named[:8]) or "nothing"}{more}'
        for channel in channels:
            if transport := _REPUBLISHED.get(channel.msgtype):
                return (
                    f'{there}; image_transport with its plugin for {transport} makes images of '
                    f'{channel.topic} (ros2 run image_transport republish {transport} raw)'
                )
        return there

    def _topic_of_infos(self, topic: str | None) -> str:
        topics = {c.topic for c in self._channels(None, CAMERA_INFO)}
        if topic is not None and topic not in topics:
            raise RecordingError(
                f'expected a topic with camera_info in {self._path}, got {topic}: there are '
                f'{", ".join(sorted(topics)) or "none"}'
            )
        base = self._topic.removesuffix('/compressed')
        return topic or base.rpartition('/')[0] + '/camera_info'

    def _has_colour(self, topic: str) -> bool:
        first = next(self._messages((topic,)), None)
        return first is not None and carries_picture(first.message)


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
