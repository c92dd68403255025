# SPDX-License-Identifier: Apache-2.0
"""What anchors the scale of a bag's frames: the messages in it, as the node would hear them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smoothdino_model.camera_frame import DepthResult
from smoothdino_model.recordings.frames import Intrinsics
from smoothdino_model.scale.sensors import MESSAGES, Anchor, Mounting, Sensors
from smoothdino_model.scale.transforms import Transforms

_AHEAD_NS = 500_000_000  # of an image's receipt: what is of its time has come by then


class BagAnchors:
    """Gives each frame of a bag its anchors, and keeps account of what they said.

    names and mounting are as for :class:`Sensors`, topics those of the sensors by their names,
    by default the only one of its type. Frames are to come in the order of their receipt. Raises
    RecordingError, in words, where a topic is not there. Close it after use.
    """

    def __init__(
        self,
        path: Path,
        names: Collection[str],
        mounting: Mounting,
        topics: Mapping[str, str | None] | None = None,
    ) -> None:
        self._names, self._mounting = names, mounting
        self._transforms = Transforms()
        self._sensors = Sensors(names, self._transforms.between)
        self._topics: dict[str, str] = {}  # by the sensors' names
        self._bag: Any = None
        sensors = [name for name in names if name in MESSAGES]
        sensors += ['imu'] if mounting.tilt_by_imu else []
        by_tf = mounting.base_frame or not all(mounting.poses.get(name) for name in sensors)
        self._coming: Iterator[tuple[str, int, Any]] = iter(())
        if sensors or by_tf:
            self._open(path, sensors, topics or {})
        self._next = next(self._coming, None)
        self._scales: list[float] = []
        self._measured = 0
        self._why_none = Counter[str]()

    def close(self) -> None:
        if self._bag:
            self._bag.close()

    def of(
        self,
        camera: Intrinsics | None,
        frame_id: str,
        stamp_ns: int,
        received_ns: int,
        rgb: np.ndarray,
    ) -> dict[str, Anchor]:
        """Give what measures the scale of a frame's depth, by the names of the anchors."""
        while self._next and self._next[1] <= received_ns + _AHEAD_NS:
            topic, _, message = self._next
            if topic == '/tf':
                self._transforms.take(message, static=False)
            for name, its in self._topics.items():
                if its == topic:
                    self._sensors.take(name, message)
            self._next = next(self._coming, None)
        return self._sensors.anchors(camera, frame_id, stamp_ns, self._mounting, rgb)

    def follow(self, result: DepthResult) -> None:
        """Take account of a frame."""
        self._scales.append(result.anchor_scale)
        why_none = [one.why_none for one in result.measured.values()]
        if all(why_none):
            self._why_none.update(why_none)
        else:
            self._measured += 1

    def scale_in_words(self) -> str:
        """Of the frames so far."""
        if not self._scales:
            return 'no frame'
        low, middle, high = np.percentile(self._scales, (5, 50, 95))
        words = (
            f'x {middle:.3f} (90 % of the frames within {low:.3f} to {high:.3f}), measured in '
            f'{self._measured} of {len(self._scales)} frames'
        )
        if self._why_none:
            (why, _), *_ = self._why_none.most_common(1)
            words += f', else mostly: {why}'
        return words

    def told(self) -> dict[str, Any]:
        """What anchors there are, by which numbers and topics."""
        return {'anchors': list(self._names), 'topics': self._topics, **vars(self._mounting)}

    def _open(
        self, path: Path, sensors: Collection[str], topics: Mapping[str, str | None]
    ) -> None:
        from smoothdino_model.recordings.bag_messages import TF, BagMessages  # for bags only

        self._bag = BagMessages(path)
        self._topics = {
            name: self._bag.topic(MESSAGES[name], topics.get(name), option=f'--{name}')
            for name in sensors
        }
        for _, _, message in self._bag.of({'/tf_static': TF}):  # holds at any time
            self._transforms.take(message, static=True)
        kinds = {topic: MESSAGES[name] for name, topic in self._topics.items()}
        self._coming = self._bag.of({'/tf': TF} | kinds)
