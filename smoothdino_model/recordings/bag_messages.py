# SPDX-License-Identifier: Apache-2.0
"""What a bag holds besides pictures: the messages of its sensors, and its transforms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from smoothdino_model.recordings.bag_files import BagFiles
from smoothdino_model.recordings.frames import RecordingError

TF = 'tf2_msgs/msg/TFMessage'
_TYPES, _ROS1_TYPES = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC)
_ROS1_TYPES.register(get_types_from_msg('geometry_msgs/TransformStamped[] transforms', TF))


class BagMessages:
    """The messages of a ROS 1 or ROS 2 bag by their topics, those of ROS 1 by its own types.

    Close it after use.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._files = path, BagFiles(path)

    def close(self) -> None:
        self._files.close()

    def topic(self, kind: str, asked: str | None, *, option: str) -> str:
        """Check a topic of messages of a type, or find the only one.

        Raises RecordingError, in words, where there is none, several or one of another type.
        """
        there = {c.topic: c.msgtype for c in self._files.channels}
        right = sorted(name for name, msgtype in there.items() if msgtype == kind)
        if asked is None and len(right) == 1:
            return right[0]
        if asked in right:
            return asked
        got = f'{len(right)}' if asked is None else f'{asked} ({there.get(asked, "not there")})'
        raise RecordingError(
            f'expected one topic of {kind} in {self._path}, got {got}: '
            + (f'name one ({option}) of: {", ".join(right)}' if right else 'it holds none')
        )

    def of(self, kinds: Mapping[str, str]) -> Iterator[tuple[str, int, Any]]:
        """Give topic, time of receipt in ns and message, in the order of receipt.

        kinds are the types by topic; messages of another one are passed over. It ends where the
        bag is damaged, of which the images tell.
        """
        try:
            for channel, received_ns, data in self._files.messages(kinds):
                if channel.msgtype != kinds[channel.topic]:
                    continue
                if channel.encoding == 'ros1':
                    message = _ROS1_TYPES.deserialize_ros1(data, channel.msgtype)
                else:
                    message = _TYPES.deserialize_cdr(data, channel.msgtype)
                yield channel.topic, received_ns, message
        except Exception:  # damage shows as sqlite3, struct, zstd, key errors and more
            return
