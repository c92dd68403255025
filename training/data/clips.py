# SPDX-License-Identifier: Apache-2.0
"""Clips on disk: folders of numbered pictures with depth, and windows of frames read from them.

A clip is a folder with pictures ``<i>.jpg`` (or ``<i>_rgb.png``, where they are PNG) and the depth
of each in ``<i>.png``: one channel, of the picture's size, 16 bit in millimetres or 8 bit as in
NYUv2 (255 is 10 m), 0 where it is unknown. Numbers count frames: where one is missing, time is.
``clip.json`` may lie beside them, see :mod:`training.data.clip_json`; without intrinsics the
camera is taken for NYUv2's. ``nyu2_train/`` of NYUv2 as Kaggle distributes it is a root of such
clips.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from smoothdino_model.network.trained_camera import NYU
from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.calibration import Calibration
from smoothdino_model.recordings.depth_images import depth_m_from_png
from smoothdino_model.recordings.frames import Intrinsics, is_of_one_shape
from smoothdino_model.recordings.images import rgb_from_file
from smoothdino_model.scale.floor import Floor
from training.data.clip_json import Described, floors_of, read_clip_json

_log = logging.getLogger(__name__)

_PICTURE = re.compile(r'(\d+)(\.jpe?g|_rgb\.png)', re.IGNORECASE)
_DEPTH = re.compile(r'(\d+)\.png', re.IGNORECASE)

_ROUNDED_PX = 2  # of a picture of the right shape
_JPEG, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
_PNG, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'


@dataclass(frozen=True, eq=False)
class Window:
    """T consecutive frames: RGB uint8 (T, H, W, 3), depth (T, H, W) in metres, NaN = invalid.

    ``focal`` is the focal length over the image width. Poses (T, 4, 4) in metres, stamps and the
    floor under the camera, one per frame, are None where they are not known; ``middle`` is the
    principal point over the image's width and height.
    """

    rgb: np.ndarray
    depth_m: np.ndarray
    focal: float
    world_from_camera: np.ndarray | None = None
    stamps_ns: tuple[int, ...] | None = None
    floors: tuple[Floor | None, ...] | None = None
    middle: tuple[float, float] = (0.5, 0.5)

    @property
    def camera(self) -> Intrinsics:
        height, width = self.rgb.shape[1:3]
        focal_px = self.focal * width
        x, y = self.middle
        return Intrinsics(focal_px, focal_px, x * width - 0.5, y * height - 0.5, width, height)

    def resized(self, height: int, width: int) -> Window:
        if self.rgb.shape[1:3] == (height, width):
            return self

        def scaled(images: np.ndarray, interpolation: int) -> np.ndarray:
            size = (width, height)
            return np.stack([cv2.resize(x, size, interpolation=interpolation) for x in images])

        # Depth is not averaged: between near and far lies nothing.
        rgb = scaled(self.rgb, cv2.INTER_AREA)
        depth_m = scaled(self.depth_m, cv2.INTER_NEAREST)
        return replace(self, rgb=rgb, depth_m=depth_m)

    def of_shape(self, height: int, width: int) -> Window:
        """Cut off what a picture of the shape of (height, width) has not; the middle stays.

        A pixel or two, which rounding leaves, stay as well.
        """
        rows, columns = self.rgb.shape[1:3]
        kept_rows = min(rows, round(columns * height / width))
        kept_columns = min(columns, round(rows * width / height))
        if max(rows - kept_rows, columns - kept_columns) <= _ROUNDED_PX:
            return self
        top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
        part = (slice(None), slice(top, top + kept_rows), slice(left, left + kept_columns))
        x, y = self.middle
        return replace(
            self,
            rgb=self.rgb[part],
            depth_m=self.depth_m[part],
            focal=self.focal * columns / kept_columns,
            middle=((x * columns - left) / kept_columns, (y * rows - top) / kept_rows),
        )

    def at_trained_focal(self) -> Window:
        """Scale depth to what a camera of the trained focal length would need to see the same.

        Space is stretched along the optical axis by that, so the poses do not fit any more.
        """
        height, width = self.rgb.shape[1:3]
        scale = NYU.scale(self.focal, height=height, width=width)
        if math.isclose(scale, 1):
            return self
        depth_m = self.depth_m / np.float32(scale)
        return Window(self.rgb, depth_m, self.focal / scale, stamps_ns=self.stamps_ns)


@dataclass(frozen=True)
class Clip:
    """One clip's frames in the order of their numbers; ``find_clips`` makes it.

    ``name`` is the folder's path below the root, ``described`` what clip.json tells of its
    pictures, ``stamps_ns`` None where it has none. ``rim_px`` pixels at each side are not read.
    ``bit_depth`` is that of the camera in pictures of 16 bit, 8 to 16 bits; 0 finds it from all of
    the clip, so that a frame is the same whichever was read before it.
    """

    name: str
    pictures: tuple[Path, ...]
    depths: tuple[Path, ...]
    numbers: tuple[int, ...]
    described: Described
    rim_px: int = 0
    bit_depth: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def focal(self) -> float:
        """The focal length over the image width."""
        return self.described.focal

    @cached_property
    def stamps_ns(self) -> tuple[int, ...] | None:
        stamp_of = self.described.stamps_ns
        return tuple(stamp_of[i] for i in self.numbers) if stamp_of else None

    def read(self, positions: Sequence[int]) -> Window:
        """Read the frames at these positions, 0 to len - 1.

        Raises ``ValueError`` where a file does not decode, sizes differ, clip.json is of
        another shape, or nothing is left within the rim.
        """
        rgbs: list[np.ndarray] = []
        depths_m: list[np.ndarray] = []
        for position in positions:
            path = self.pictures[position]
            rgb, depth_m = self._decoded(path, self.depths[position])
            first = rgbs[0] if rgbs else rgb
            if not rgb.shape[:2] == depth_m.shape == first.shape[:2]:
                raise ValueError(
                    f'{path}: expected picture and depth of one size in the whole clip, got '
                    f'{rgb.shape[:2]}, {depth_m.shape} and before {first.shape[:2]}'
                )
            rgbs.append(rgb)
            depths_m.append(depth_m)
        described, rim, (height, width) = self.described, self.rim_px, rgbs[0].shape[:2]
        self._check_size(height, width)
        inside = slice(rim, -rim or None)
        numbers = [self.numbers[p] for p in positions]
        poses = [described.poses[i] for i in numbers if i in described.poses]
        x, y = described.middle
        return Window(
            np.stack(rgbs)[:, inside, inside],
            np.stack(depths_m)[:, inside, inside],
            self.focal * width / (width - 2 * rim),
            np.stack(poses) if len(poses) == len(numbers) else None,
            tuple(self.stamps_ns[p] for p in positions) if self.stamps_ns else None,
            tuple(described.floors.get(i) for i in numbers) if described.floors else None,
            ((x * width - rim) / (width - 2 * rim), (y * height - rim) / (height - 2 * rim)),
        )

    def _check_size(self, height: int, width: int) -> None:
        lens = self.described.camera
        if lens and not is_of_one_shape((height, width), (lens.height, lens.width)):
            raise ValueError(
                f'{self.name}: expected pictures of the shape of the intrinsics in clip.json, '
                f'{lens.width}x{lens.height}, got {width}x{height}'
            )
        if not 0 <= 2 * self.rim_px < min(height, width):
            raise ValueError(
                f'rim_px: expected 0 to less than half of {width}x{height} pixels, got '
                f'{self.rim_px}'
            )

    def _decoded(self, picture: Path, depth: Path) -> tuple[np.ndarray, np.ndarray]:
        try:
            data = picture.read_bytes()
            bits = self._bits if _is_of_16_bit(data) else 0
            rgb = rgb_from_file(data, bit_depth=BitDepth(bits))
            depth_m = depth_m_from_png(depth)
        except (ValueError, OSError) as error:
            raise ValueError(f'{picture} or its depth cannot be read: {error}') from error
        if depth_m is None:
            raise ValueError(f'{depth}: expected depth, a PNG of one channel, got colours')
        return rgb, depth_m

    @cached_property
    def _bits(self) -> int:
        """The bits of the camera in pictures of 16 bit, told or those of the brightest one."""
        bit_depth = BitDepth(self.bit_depth)
        for picture in self.pictures if self.bit_depth == 0 else ():
            with contextlib.suppress(ValueError, OSError):  # said when its own turn comes
                data = picture.read_bytes()
                if _is_of_16_bit(data):
                    rgb_from_file(data, bit_depth=bit_depth)
        return bit_depth.bits


def find_clips(root: str | Path, *, bit_depth: int = 0) -> list[Clip]:
    """Find the clips in ``root`` and below, sorted by name.

    Frames without depth, depth without a picture and files that are empty, cut short or of another
    kind are left out and counted in one line of the log, as are clips whose clip.json is broken.
    Folders whose names start with a dot are not looked into. ``bit_depth`` is as in
    :class:`Clip`. Raises ``ValueError`` where nothing is left.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f'expected a folder with clips, got {root}: no such folder')
    clips, left_out = [], Counter[str]()
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith('.'))
        clip = _clip(root, Path(folder), files, left_out)
        if clip:
            clips.append(replace(clip, bit_depth=bit_depth))
    total = f'{sum(map(len, clips))} frames in {len(clips)} clips'
    counts = ', '.join(f'{count} {reason}' for reason, count in left_out.items() if count)
    if not clips:
        raise ValueError(
            f'expected clips in {root}, folders with <i>.jpg and depth <i>.png, got none'
            + (f' (left out: {counts})' if counts else '')
        )
    if counts:
        _log.warning('%s: %s; left out: %s', root, total, counts)
    else:
        _log.info('%s: %s', root, total)
    return sorted(clips, key=lambda clip: clip.name)


def with_floors(clips: Sequence[Clip], path: Path) -> list[Clip]:
    """Add the floors that a file tells of clips by their names; what clip.json tells counts more.

    Raises ``ValueError`` where the file cannot be read.
    """
    try:
        told = json.loads(path.read_text(encoding='utf-8'))
        floors = [
            floors_of(told.get(clip.name, {}), clip.numbers, clip.described.poses)
            for clip in clips
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path}: expected a JSON file of floors by the names of clips, got {error!r}'
        ) from error
    return [
        replace(clip, described=replace(clip.described, floors=clip.described.floors or one))
        for clip, one in zip(clips, floors, strict=True)
    ]


def _clip(root: Path, folder: Path, files: list[str], left_out: Counter[str]) -> Clip | None:
    pictures, more = _numbered(_PICTURE, folder, files)
    if not pictures:
        return None
    depths, _ = _numbered(_DEPTH, folder, files)
    paired = sorted(pictures.keys() & depths.keys())
    kept = [i for i in paired if _is_picture(pictures[i]) and _is_depth(depths[i])]
    left_out.update(
        {
            'pictures without depth': len(pictures.keys() - depths.keys()),
            'depth maps without a picture': len(depths.keys() - pictures.keys()),
            'frames with an unreadable file': len(paired) - len(kept),
            'pictures of a number that another has': more,
        }
    )
    described = Described()
    if 'clip.json' in files:
        try:
            described = read_clip_json(folder / 'clip.json', sorted(pictures))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning('%s cannot be read: %r', folder / 'clip.json', error)
            left_out['clips with a broken clip.json'] += 1
            return None
        if doubt := Calibration(intrinsics=described.camera, fault='').doubt:
            _log.warning('%s is doubtful: %s', folder / 'clip.json', doubt)
    if described.stamps_ns:
        stamped = [i for i in kept if i in described.stamps_ns]
        left_out['frames without a stamp'] += len(kept) - len(stamped)
        kept = stamped
    if not kept:
        return None
    return Clip(
        folder.relative_to(root).as_posix() if folder != root else root.resolve().name,
        tuple(pictures[i] for i in kept),
        tuple(depths[i] for i in kept),
        tuple(kept),
        described,
    )


def _numbered(
    pattern: re.Pattern[str], folder: Path, files: list[str]
) -> tuple[dict[int, Path], int]:
    """The files of a kind by their numbers, and how many more there are of these (01 beside 1)."""
    found = [m for m in map(pattern.fullmatch, sorted(files)) if m]
    by_number = {int(m[1]): folder / m[0] for m in found}
    return by_number, len(found) - len(by_number)


def _is_picture(path: Path) -> bool:
    """Tell whether a file has the beginning and the end of a JPEG or a PNG."""
    head, tail = _ends(path)
    if head[:2] == _JPEG and _JPEG_END in tail:
        return True
    return head[:8] == _PNG and tail.endswith(_PNG_END)


def _is_depth(path: Path) -> bool:
    """Tell whether a file has the beginning and the end of a PNG of one channel, 8 or 16 bit."""
    head, tail = _ends(path)
    return head[:8] == _PNG and head[24:26] in (b'\x08\0', b'\x10\0') and tail.endswith(_PNG_END)


def _ends(path: Path) -> tuple[bytes, bytes]:
    try:
        with path.open('rb') as file:
            head = file.read(26)
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
            return head, file.read()
    except OSError:
        return b'', b''


def _is_of_16_bit(data: bytes) -> bool:
    return data[:8] == _PNG and data[24:25] == b'\x10'
