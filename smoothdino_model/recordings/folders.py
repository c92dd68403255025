# SPDX-License-Identifier: Apache-2.0
"""A folder of pictures as a recording."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from smoothdino_model.recordings.bit_depth import BitDepth
from smoothdino_model.recordings.depth_images import depth_m_from_png
from smoothdino_model.recordings.frames import (
    BAGS,
    PERIOD_NS,
    Frame,
    Recording,
    RecordingError,
    UniqueNames,
)
from smoothdino_model.recordings.image_bytes import PNG
from smoothdino_model.recordings.images import rgb_from_file
from smoothdino_model.recordings.netpbm import LONGEST_HEADER, grey_levels_of
from smoothdino_model.recordings.pages import pages_of

_JPEGS = ('.jpg', '.jpeg', '.jpe', '.jfif')
PICTURES = (*_JPEGS, '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.pnm')
# Of these, what OpenCV reads differs from build to build, and from what a viewer shows.
_NOT_READ = (
    *('.heic', '.heif', '.avif', '.jxl', '.jp2', '.j2k', '.gif', '.svg', '.psd', '.tga', '.exr'),
    *('.mpo', '.pbm', '.pam', '.pfm', '.dib'),
    *('.hdr', '.dng', '.raw', '.cr2', '.cr3', '.nef', '.arw', '.orf', '.rw2', '.raf'),
)

_log = logging.getLogger(__name__)


class FolderRecording(Recording):
    """The pictures of one folder in natural order (2 before 10), 30 to the second.

    A one-channel PNG beside a JPEG of the same stem is its depth: 8 bit as in NYU (255 is
    10 m), 16 bit in millimetres, 0 unknown in both. No picture is made of such a PNG. Other
    pictures of 16 bit are of one camera, whose bit_depth is as in BitDepth. Grey ones among others
    of 8 bit, as depth lies beside colours in many data sets, are refused.
    """

    kind = 'folder'

    def __init__(self, path: Path, bit_depth: int = 0) -> None:
        self._bits = bit_depth
        # A link that leads nowhere is a picture that is missing.
        files = [p for p in path.iterdir() if not p.is_dir() and not p.name.startswith('.')]
        found = [p for p in files if p.suffix.lower() in PICTURES]
        passed_over = Counter(p.suffix.lower() for p in files if p.suffix.lower() in _NOT_READ)
        kinds = ', '.join(f'{count} {kind}' for kind, count in passed_over.items())
        jpegs = {p.stem for p in found if p.suffix.lower() in _JPEGS}
        self._depth_of = {
            p.stem: p for p in found if p.suffix.lower() == '.png' and p.stem in jpegs
        }
        companions = set(self._depth_of.values())
        self._pictures = sorted((p for p in found if p not in companions), key=_natural)
        if not self._pictures:
            advice = 'give the folder that directly holds them'
            if any(p.suffix in BAGS for p in path.iterdir()):
                advice = 'it holds a rosbag without metadata.yaml, give the file of the bag'
            if kinds:
                advice = f'convert what is there ({kinds})'
            raise RecordingError(
                f'expected images ({", ".join(PICTURES)}) in the folder {path}, got none: {advice}'
            )
        _check_kinds(self._pictures)
        if kinds:
            _log.warning('%s holds pictures of kinds that are not read: %s', path, kinds)
        self._said_of_pages = False

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[Frame]:
        unique = UniqueNames()
        bit_depth = BitDepth(self._bits)
        for i, path in enumerate(self._pictures):
            try:
                data = path.read_bytes()
                self._say_of_pages(path, data)
                rgb = rgb_from_file(data, bit_depth=bit_depth)
                is_jpeg = path.suffix.lower() in _JPEGS
                depth_path = self._depth_of.get(path.stem) if is_jpeg else None
                depth_m = depth_m_from_png(depth_path) if depth_path else None
                if depth_path and depth_m is not None and depth_m.shape != rgb.shape[:2]:
                    raise ValueError(
                        f'expected a depth PNG {depth_path.name} of {_size(rgb)}, got '
                        f'{_size(depth_m)}'
                    )
            except (ValueError, OSError) as error:
                raise RecordingError(f'{path} cannot be read: {error}') from error
            yield Frame(unique(path.stem), i * PERIOD_NS, rgb, depth_m=depth_m)

    def _say_of_pages(self, path: Path, data: bytes) -> None:
        pages = 1 if self._said_of_pages else pages_of(data)
        if pages > 1:
            self._said_of_pages = True
            _log.warning(
                '%s holds %d pictures, and the first is read of it and of any other like it',
                *(path, pages),
            )


def _check_kinds(pictures: list[Path]) -> None:
    """Raise RecordingError where pictures of 16 bit and one channel lie among others."""
    deep: list[Path] = []
    others: list[Path] = []
    for path in pictures:
        (deep if _is_deep_grey(path) else others).append(path)
        if deep and others:
            raise RecordingError(
                f'expected pictures of one camera in the folder {path.parent}, got '
                f'{others[0].name} and, of one channel of 16 bit as depth has, {deep[0].name}: '
                'give a folder without the one or the other'
            )


def _is_deep_grey(path: Path) -> bool:
    """Whether a file is a PNG or a PGM of one channel of 16 bit, by its header."""
    try:
        with path.open('rb') as file:
            head = file.read(LONGEST_HEADER)
    except OSError:  # said when its own turn comes
        return False
    return (head.startswith(PNG) and head[24:26] == b'\x10\0') or grey_levels_of(head) > 255


def _size(pixels: np.ndarray) -> str:
    return f'{pixels.shape[1]}x{pixels.shape[0]}'


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Sort key by which 2 comes before 10: text and numbers take turns in it."""
    parts = re.split(r'(\d+)', path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name
