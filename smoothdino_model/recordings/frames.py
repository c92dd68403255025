# SPDX-License-Identifier: Apache-2.0
"""Recordings: a folder of images, a video file or a rosbag, read as one stream of frames."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from smoothdino_model.recordings.images import rgb_from_file

_log = logging.getLogger(__name__)

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
VIDEOS = (
    *('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.ts', '.mts', '.m2ts'),
    *('.ogv', '.wmv', '.flv', '.3gp', '.gif', '.mjpg', '.mjpeg', '.h264', '.hevc', '.y4m'),
)
BAGS = ('.bag', '.mcap', '.db3')
FOLDER_PERIOD_NS = 33_333_333  # pictures in a folder carry no time: taken as 30 a second


class RecordingError(ValueError):
    """A recording that is missing, damaged or of no kind that can be read."""


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera without distortion, in pixels of a (height, width) image."""

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    width: int
    height: int

    @classmethod
    def from_k(cls, k: Sequence[float], width: int, height: int) -> Intrinsics:
        """From the 9 row-major values of a camera matrix."""
        if len(k) != 9:
            raise ValueError(f'expected 9 values of a camera matrix, got {len(k)}')
        return cls(float(k[0]), float(k[4]), float(k[2]), float(k[5]), width, height)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture: rgb (H, W, 3) uint8, depth_m (H, W) float32 metres with NaN where unknown."""

    name: str
    stamp_ns: int
    rgb: np.ndarray
    intrinsics: Intrinsics | None = None
    depth_m: np.ndarray | None = None
    world_from_camera: np.ndarray | None = None  # (4, 4), metres


class Recording(ABC):
    """A finite stream of frames that can be iterated again and again; close it after use."""

    kind: str  # 'folder', 'video' or 'bag'

    @abstractmethod
    def __len__(self) -> int:
        """Frames as far as the container knows, 0 where it does not."""

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames in order of time. Raises RecordingError at one that cannot be read."""

    def close(self) -> None:  # noqa: B027 -- only bags hold files open
        """Let go of open files."""

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_recording(
    path: str | Path, *, topic: str | None = None, info_topic: str | None = None
) -> Recording:
    """Open a folder of images, a video file or a rosbag (a ROS 2 directory or a single file).

    topic names the images in a bag; it may be left out where there is only one with colours.
    info_topic names their camera_info, by default the one beside them.
    Raises RecordingError, in words, for anything else.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    is_bag = suffix in BAGS if path.is_file() else (path / 'metadata.yaml').is_file()
    if not path.exists():
        raise RecordingError(f'expected a folder, a video or a rosbag, got {path}: no such file')
    if is_bag:
        from smoothdino_model.recordings.bags import (
            BagRecording,  # rosbags is loaded for bags only
        )

        return BagRecording(path, topic, info_topic)
    if topic or info_topic:
        raise RecordingError(
            f'expected a rosbag to read the topic {topic or info_topic} from, got {path}'
        )
    if path.is_dir():
        return FolderRecording(path)
    if suffix in VIDEOS:
        return VideoRecording(path)
    advice = 'give its folder' if suffix in PICTURES else f'videos end in {", ".join(VIDEOS)}'
    raise RecordingError(
        f'expected a folder of images, a video or a rosbag ({", ".join(BAGS)}), '
        f'got {path}: {advice}'
    )


class FolderRecording(Recording):
    """The pictures of one folder in natural order (2 before 10), 30 to the second.

    A one-channel PNG beside a JPEG of the same stem is its depth: 8 bit as in NYU (255 is
    10 m), 16 bit in millimetres, 0 unknown in both. No picture is made of such a PNG.
    """

    kind = 'folder'

    def __init__(self, path: Path) -> None:
        found = [p for p in path.iterdir() if p.suffix.lower() in PICTURES and p.is_file()]
        found = [p for p in found if not p.name.startswith('.')]
        jpegs = {p.stem for p in found if p.suffix.lower() in ('.jpg', '.jpeg')}
        self._depth_of = {
            p.stem: p for p in found if p.suffix.lower() == '.png' and p.stem in jpegs
        }
        companions = set(self._depth_of.values())
        self._pictures = sorted((p for p in found if p not in companions), key=_natural)
        if not self._pictures:
            advice = 'give the folder that directly holds them'
            if any(p.suffix in BAGS for p in path.iterdir()):
                advice = 'it holds a rosbag without metadata.yaml, give the file of the bag'
            raise RecordingError(
                f'expected images ({", ".join(PICTURES)}) in the folder {path}, got none: {advice}'
            )

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[Frame]:
        unique = UniqueNames()
        for i, path in enumerate(self._pictures):
            try:
                rgb = rgb_from_file(path.read_bytes())
                is_jpeg = path.suffix.lower() in ('.jpg', '.jpeg')
                depth_path = self._depth_of.get(path.stem) if is_jpeg else None
                depth_m = _read_depth_m(depth_path, rgb.shape[:2]) if depth_path else None
            except (ValueError, OSError) as error:
                raise RecordingError(f'{path} cannot be read: {error}') from None
            yield Frame(unique(path.stem), i * FOLDER_PERIOD_NS, rgb, depth_m=depth_m)


class VideoRecording(Recording):
    """A video file as OpenCV reads it; stamps are the container's, from the first frame on."""

    kind = 'video'

    def __init__(self, path: Path) -> None:
        self._path = path
        video = self._open()
        self._count = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        video.release()

    def _open(self) -> cv2.VideoCapture:
        video = cv2.VideoCapture(str(self._path))
        if not video.isOpened():
            raise RecordingError(
                f'expected a video that OpenCV can read, got {self._path}: it is empty, cut '
                'short or in an unknown format'
            )
        return video

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        video = self._open()
        try:
            rate_hz = video.get(cv2.CAP_PROP_FPS)
            period_ns = round(1e9 / rate_hz) if 0 < rate_hz < 1e6 else FOLDER_PERIOD_NS
            stamp_ns, i = -period_ns, 0
            while (read := video.read())[0]:
                position_ns = round(video.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                # Some containers give no position or repeat one.
                stamp_ns = position_ns if position_ns > stamp_ns else stamp_ns + period_ns
                rgb = cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
                yield Frame(f'frame_{i:06d}', stamp_ns, rgb)
                i += 1
        finally:
            video.release()
        if i == 0:
            raise RecordingError(f'expected frames in the video {self._path}, got none')
        if i < self._count:
            _log.warning(
                'the video %s gave %d of its %d frames: cut short or damaged',
                *(self._path, i, self._count),
            )


def _read_depth_m(path: Path, size: tuple[int, ...]) -> np.ndarray | None:
    """(H, W) float32 metres, NaN where unknown; None for a PNG that holds colours."""
    stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.shape[:2] != size:
        got = 'a broken one' if stored is None else f'{stored.shape[1]}x{stored.shape[0]}'
        raise ValueError(f'expected a depth PNG {path.name} of {size[1]}x{size[0]}, got {got}')
    if stored.ndim == 3:
        return None
    scale = 10 / 255 if stored.dtype == np.uint8 else 0.001
    return np.where(stored > 0, stored * np.float32(scale), np.float32(np.nan))


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Sort key by which 2 comes before 10: text and numbers take turns in it."""
    parts = re.split(r'(\d+)', path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


class UniqueNames:
    """Makes names unique: the second 'a' becomes 'a_1'."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, name: str) -> str:
        candidate, i = name, 0
        while candidate in self._seen:
            i += 1
            candidate = f'{name}_{i}'
        self._seen.add(candidate)
        return candidate
