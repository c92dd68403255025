# SPDX-License-Identifier: Apache-2.0
"""How many pictures one file holds, by its structure: of TIFF, animated WebP and animated PNG."""

from __future__ import annotations

import struct

_THUMBNAIL, _SUBFILE = 1, 254  # a bit of the tag of TIFF that says what a page is


def pages_of(data: bytes) -> int:
    """The pictures in a file, thumbnails not counted; 1 for other formats and damaged files."""
    try:
        if data[:4] in (b'II*\0', b'MM\0*'):
            return _pages_of_tiff(data)
        if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
            return max(1, _chunks_of_webp(data).count(b'ANMF'))
        if data[:8] == b'\x89PNG\r\n\x1a\n' and data[37:41] == b'acTL':
            return max(1, int.from_bytes(data[41:45], 'big'))
    except struct.error:  # it breaks off
        pass
    return 1


def _pages_of_tiff(data: bytes) -> int:
    order = '<' if data[:1] == b'I' else '>'
    pages, seen = 0, set[int]()
    (at,) = struct.unpack_from(f'{order}I', data, 4)
    while at and at not in seen:
        seen.add(at)
        (count,) = struct.unpack_from(f'{order}H', data, at)
        tags = [struct.unpack_from(f'{order}HHII', data, at + 2 + 12 * i) for i in range(count)]
        pages += not any(tag == _SUBFILE and value & _THUMBNAIL for tag, _, _, value in tags)
        (at,) = struct.unpack_from(f'{order}I', data, at + 2 + 12 * count)
    return max(1, pages)


def _chunks_of_webp(data: bytes) -> list[bytes]:
    names, at = [], 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from('<4sI', data, at)
        names.append(name)
        at += 8 + length + length % 2
    return names
