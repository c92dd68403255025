# SPDX-License-Identifier: Apache-2.0
"""What every recording gives: frames with their stamps, cameras and depth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BAGS = ('.bag', '.mcap', '.db3')
# How far from 1 a pixel's sides, fx / fy, may be: beyond, it is not square.
SQUARE = 0.02
PERIOD_NS = 33_333_333  # of pictures that carry no time: taken as 30 a second


def is_of_one_shape(size: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether (height, width) of one are those of the other, scaled, with square pixels."""
    (height, width), (other_height, other_width) = size, other
    return abs(width * other_height / (height * other_width) - 1) <= SQUARE


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

    @property
    def focal(self) -> float:
        """The focal length over the image's width."""
        return self.fx_px / self.width

    @classmethod
    def from_k(cls, k: Sequence[float], width: int, height: int) -> Intrinsics:
        """From the 9 row-major values of a camera matrix."""
        if len(k) != 9:
            raise ValueError(f'expected 9 values of a camera matrix, got {len(k)}')
        return cls(float(k[0]), float(k[4]), float(k[2]), float(k[5]), width, height)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture: rgb (H, W, 3) uint8, depth_m (H, W) float32 metres with NaN where unknown.

    ``frame_id`` and ``received_ns``, when its recorder received it, are known of bags alone.
    """

    name: str
    stamp_ns: int
    rgb: np.ndarray
    intrinsics: Intrinsics | None = None
    depth_m: np.ndarray | None = None
    world_from_camera: np.ndarray | None = None  # (4, 4), metres
    frame_id: str = ''
    received_ns: int = 0


def stamp_ns_of(header: Any) -> int:
    """Nanoseconds of a header, rclpy's or rosbags'."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


class Recording(ABC):
    """A finite stream of frames that can be iterated again and again; close it after use."""

    kind: str  # 'folder', 'video' or 'bag'
    lost: tuple[str, ...] = ()  # in words, what the latest pass, at its end, could not give
    doubts: tuple[str, ...] = ()  # in words, what speaks against the scale of the frames so far

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
