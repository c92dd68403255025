# SPDX-License-Identifier: Apache-2.0
"""A bag of pictures made into a bag of depth: what ``smoothdino bag`` does."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from tqdm import tqdm

from smoothdino_model.bag_anchors import BagAnchors
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.recordings.bags import CAMERA_INFO, IMAGE, TYPES, BagRecording, Received
from smoothdino_model.recordings.depth_images import depth_bytes
from smoothdino_model.recordings.frames import BAGS, RecordingError
from smoothdino_model.whole_files import written_whole

DEPTH, DEPTH_INFO = '/depth/image', '/depth/camera_info'
# The last version that Humble's rosbag2 reads; Jazzy's reads it as well.
_VERSION: Literal[8] = 8


@dataclass
class Account:
    """What became of a bag: frames written, resets after the first, and in words what was lost."""

    frames: int = 0
    resets: int = 0
    lost: list[str] = field(default_factory=list)
    doubts: tuple[str, ...] = ()  # those of the recording

    def custom_data(self, anchors: BagAnchors | None) -> dict[str, str]:
        """What the bag's metadata say of it."""
        told = {
            'smoothdino_frames': str(self.frames),
            'smoothdino_lost': '; '.join(self.lost) or 'nothing',
            'smoothdino_doubts': '; '.join(self.doubts) or 'none',
        }
        if anchors:
            told['smoothdino_scale_anchor'] = json.dumps(anchors.told())
            told['smoothdino_anchor_scale'] = anchors.scale_in_words()
        return told


class _Topics:
    """The topics of a bag, made as their first messages come."""

    def __init__(self, bag: Writer) -> None:
        self._bag = bag
        self._connections: dict[str, Connection] = {}

    def write(self, topic: str, message: Any, received_ns: int) -> None:
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._bag.add_connection(topic, kind, typestore=TYPES)
        data = TYPES.serialize_cdr(message, kind)
        self._bag.write(self._connections[topic], received_ns, data)


@dataclass(frozen=True)
class DepthFormat:
    """How depth is written, see depth_bytes. Raises ValueError on a wrong combination."""

    encoding: str = '32FC1'
    min_depth_m: float = 0.1
    max_depth_m: float = 10.0

    def __post_init__(self) -> None:
        most = 65.535 if self.encoding == '16UC1' else np.finfo(np.float32).max
        if not 0 <= self.min_depth_m < self.max_depth_m <= most:
            raise ValueError(
                f'expected 0 <= min depth < max depth <= {most:g} m with {self.encoding}, got '
                f'{self.min_depth_m:g} and {self.max_depth_m:g}'
            )


def write_depth_bag(
    recording: BagRecording,
    path: Path,
    pipeline: DepthPipeline,
    *,
    storage: str,
    depth_format: DepthFormat,
    focal_correction: bool = True,
    anchors: BagAnchors | None = None,
    keep_input: bool = False,
    custom_data: Mapping[str, str] | None = None,
) -> Account:
    """Write a ROS 2 bag with the depth of every frame, and give an account of it.

    Depth and its camera_info have the header of their frame and the time at which it was
    received. What is damaged is left out and told of in the account and in the bag's metadata: a
    frame that can't be decoded alone, a bag that breaks off from there on.

    storage is 'mcap' or 'sqlite3'; focal_correction scales depth by the focal length that
    camera_info tells, anchors by what the same bag tells of the surroundings; keep_input also
    copies the images and their camera_info; custom_data goes into the bag's metadata. The bag
    appears at the path only when whole. Raises FileExistsError where something is already,
    RecordingError where no frame can be read.
    """
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    account = Account(lost=[recording.cut] if recording.cut else [])
    try:
        with (
            _written(path, storage) as bag,
            # disable=None: no bar where stderr is not a terminal
            tqdm(total=len(recording) or None, unit='frame', disable=None) as bar,
        ):
            topics = _Topics(bag)
            for received, info, depth_m in _answered(
                recording, pipeline, account, focal_correction=focal_correction, anchors=anchors
            ):
                if keep_input:
                    topics.write(received.topic, received.message, received.received_ns)
                if info is not None:
                    topics.write(DEPTH_INFO, info, received.received_ns)
                if depth_m is not None:
                    depth = _message(depth_m, received.message.header, depth_format)
                    topics.write(DEPTH, depth, received.received_ns)
                bar.update(received.msgtype != CAMERA_INFO)
            if not account.frames:
                why = account.lost[-1] if account.lost else 'there is none on its topic'
                raise RecordingError(f'no frame could be read: {why}')
            account.doubts = recording.doubts
            for key, text in (account.custom_data(anchors) | dict(custom_data or {})).items():
                bag.set_custom_data(key, text)
    except sqlite3.Error as error:  # those of reading are RecordingErrors
        raise OSError(f'{path} cannot be written: {error}') from None
    return account


@contextmanager
def _written(path: Path, storage: str) -> Iterator[Writer]:
    """Give a bag to write to, whose file is called NAME_0, as rosbag2 calls the first of a bag."""
    with written_whole(path) as place:
        numbered = place.with_name(f'{place.name}_0')  # by its folder a file is called
        plugin = StoragePlugin[storage.upper()]
        with Writer(numbered, version=_VERSION, storage_plugin=plugin) as bag:
            yield bag
        numbered.rename(place)


def check_output(path: Path) -> None:
    """Raise FileExistsError or ValueError where no bag can be written."""
    if path.exists():
        raise FileExistsError(f'{path} exists already: name another output, or remove it first')
    if path.suffix in BAGS:  # a folder so called is taken for the file of a bag
        raise ValueError(
            f'expected a folder for the bag whose name does not end in {path.suffix}, got {path}'
        )


def _answered(
    recording: BagRecording,
    pipeline: DepthPipeline,
    account: Account,
    *,
    focal_correction: bool,
    anchors: BagAnchors | None,
) -> Iterator[tuple[Received, Any, np.ndarray | None]]:
    """Every message; with one of an image that can be read, the depth's camera_info and depth."""
    for received in _up_to_damage(recording, account):
        if received.msgtype == CAMERA_INFO:
            yield received, None, None
            continue
        try:
            rgb = received.rgb()
        except RecordingError as error:
            account.lost.append(str(error))
            yield received, None, None
            continue
        calibration = recording.calibrated(received, *rgb.shape[:2])
        focal = calibration.focal if focal_correction else None
        frame_id = received.message.header.frame_id
        stamp_ns = received.stamp_ns
        measure = (
            anchors.of(calibration.intrinsics, frame_id, stamp_ns, received.received_ns, rgb)
            if anchors
            else {}
        )
        frame = CameraFrame(rgb, stamp_ns, frame_id, focal=focal, anchors=measure)
        result = pipeline.step({'': frame})['']
        if anchors:
            anchors.follow(result)
        # The first frame always starts afresh: it is no reset of what was there.
        account.resets += account.frames > 0 and result.reset is not None
        account.frames += 1
        yield received, calibration.info, result.depth_m


def _up_to_damage(recording: BagRecording, account: Account) -> Iterator[Received]:
    try:
        yield from recording.messages()
        account.lost += [one for one in recording.lost if one not in account.lost]
    except RecordingError as error:
        account.lost.append(f'{error}; what comes after it is lost')


def _message(depth_m: np.ndarray, header: Any, depth_format: DepthFormat) -> Any:
    data = depth_bytes(depth_m, **vars(depth_format))
    height, width = depth_m.shape
    return TYPES.types[IMAGE](
        header=header,
        height=height,
        width=width,
        encoding=depth_format.encoding,
        is_bigendian=sys.byteorder == 'big',
        step=len(data) // height,
        data=np.frombuffer(data, np.uint8),
    )
