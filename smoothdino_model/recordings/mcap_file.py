# SPDX-License-Identifier: Apache-2.0
"""One file of MCAP (mcap.dev/spec), read for the channels that are asked for and nothing else.

An mcap file is a row of records (opcode, length, content), most of them in compressed chunks, and
ends with a summary and a magic number. Of a file without that end, as a recorder leaves it that
was killed, the records before the cut are read. Schemas are not: the types of images are known.
"""

from __future__ import annotations

import heapq
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import lz4.frame

from smoothdino_model.recordings.frames import RecordingError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b'\x89MCAP0\r\n'
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _STATISTICS = 1, 2, 3, 4, 5, 6, 0x0B
_INDEX = 7  # of the messages of one channel in the chunk before
_DECOMPRESS = {'': bytes, 'lz4': lz4.frame.decompress, 'zstd': zstd.decompress}


@dataclass(frozen=True)
class Channel:
    """A topic of a file or bag, its type as ROS 2 names it, how messages are encoded, how many."""

    topic: str
    msgtype: str
    encoding: str  # 'cdr' in ROS 2
    count: int


@dataclass
class _Chunk:
    at: int  # of its content in the file
    length: int
    start_ns: int
    channels: set[int] = field(default_factory=set)  # empty where it is not known


class McapFile:
    """The channels of a file with the count of their messages, and the messages themselves.

    ``cut`` says in words what of the file cannot be read, '' where it is whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schemas: dict[int, str] = {}
        self._of: dict[int, tuple[str, str, str]] = {}  # topic, type and encoding of a channel
        self._counts = Counter[int]()
        self._chunks: list[_Chunk] = []
        self._loose: list[tuple[int, int, int, int]] = []  # time, channel, place, length
        self._has_statistics = False
        with path.open('rb') as file:
            size = file.seek(0, 2)
            whole, is_whole = self._scan(file, size)
            self.cut = (
                ''
                if is_whole
                else f'{path} is cut short: it ends without an index, and the last {size - whole} '
                f'of its {size} bytes are no whole record'
            )
            if not self._has_statistics:
                self._count(file)
        self.channels = [Channel(*of, self._counts[i]) for i, of in self._of.items()]

    def messages(self, topics: Collection[str]) -> Iterator[tuple[Channel, int, bytes]]:
        """The messages of some topics with their times of receipt in ns, in the order of these."""
        wanted = {
            i: channel
            for i, channel in zip(self._of, self.channels, strict=True)
            if channel.topic in topics
        }
        with self._path.open('rb') as file:
            loose = (
                (time_ns, 0, i, _read(file, at, length))
                for time_ns, i, at, length in sorted(self._loose)
                if i in wanted
            )
            in_chunks = self._in_chunks(file, wanted.keys())
            for time_ns, _, i, data in heapq.merge(loose, in_chunks, key=lambda one: one[0]):
                yield wanted[i], time_ns, data

    def _in_chunks(
        self, file: BinaryIO, wanted: Collection[int]
    ) -> Iterator[tuple[int, int, int, bytes]]:
        """Chunks may overlap in time, and the messages in one be out of order."""
        waiting: list[tuple[int, int, int, bytes]] = []
        place = 0
        for chunk in sorted(self._chunks, key=lambda chunk: chunk.start_ns):
            if chunk.channels and chunk.channels.isdisjoint(wanted):
                continue
            while waiting and waiting[0][0] < chunk.start_ns:
                yield heapq.heappop(waiting)
            for op, content in _records(_decompressed(_read(file, chunk.at, chunk.length))):
                if op == _MESSAGE:
                    i, _, time_ns, _ = struct.unpack_from('<HIQQ', content)
                    if i in wanted:
                        heapq.heappush(waiting, (time_ns, place, i, bytes(content[22:])))
                        place += 1
        while waiting:
            yield heapq.heappop(waiting)

    def _scan(self, file: BinaryIO, size: int) -> tuple[int, bool]:
        """Read what is between the chunks; give the end of the whole records, and if all are."""
        if _read(file, 0, len(MAGIC)) != MAGIC:
            raise RecordingError('it does not begin as an mcap')
        at = len(MAGIC)
        while True:
            head = _read(file, at, 9)
            # Zeros are what a file system that lost power may leave.
            if len(head) < 9 or head[0] == 0:
                return at, False
            op, length = struct.unpack('<BQ', head)
            content, at = at + 9, at + 9 + length
            if at > size:
                return content - 9, False
            if op == _MESSAGE:
                i, _, time_ns = struct.unpack('<HIQ', file.read(14))
                self._loose.append((time_ns, i, content + 22, length - 22))
            elif op == _CHUNK:
                self._chunks.append(_Chunk(content, length, *struct.unpack('<Q', file.read(8))))
            elif op == _INDEX and self._chunks:
                self._chunks[-1].channels.update(struct.unpack('<H', file.read(2)))
            elif op in (_SCHEMA, _CHANNEL, _STATISTICS):
                self._take(op, memoryview(file.read(length)))
            elif op == _FOOTER:
                return at, _read(file, at, len(MAGIC)) == MAGIC

    def _take(self, op: int, content: memoryview) -> None:
        if op == _SCHEMA:
            self._schemas[_u16(content, 0)] = _text(content, 2)[0]
        elif op == _CHANNEL:
            topic, at = _text(content, 4)
            encoding, _ = _text(content, at)
            kind = self._schemas.get(_u16(content, 2), '')
            self._of.setdefault(_u16(content, 0), (topic, kind, encoding))
        elif op == _STATISTICS:
            self._has_statistics = True
            self._counts.update(dict(struct.iter_unpack('<HQ', content[46:])))

    def _count(self, file: BinaryIO) -> None:
        """Count the messages, and find the channels, of a file without a summary."""
        self._counts.update(i for _, i, _, _ in self._loose)
        for chunk in self._chunks:
            chunk.channels.clear()  # the index of the last one may be cut
            for op, content in _records(_decompressed(_read(file, chunk.at, chunk.length))):
                if op == _MESSAGE:
                    chunk.channels.add(_u16(content, 0))
                    self._counts[_u16(content, 0)] += 1
                elif op in (_SCHEMA, _CHANNEL):
                    self._take(op, content)


def _read(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)


def _decompressed(chunk: bytes) -> bytes:
    """Give the records of a chunk. Raises ValueError where they are not what was written."""
    size, checksum = struct.unpack_from('<QI', chunk, 16)
    kind, at = _text(memoryview(chunk), 28)
    if kind not in _DECOMPRESS:
        raise ValueError(f'expected chunks of mcap compressed by zstd or lz4, got {kind!r:.40}')
    records = _DECOMPRESS[kind](chunk[at + 8 :])
    if len(records) != size or (checksum and zlib.crc32(records) != checksum):
        raise ValueError('a chunk is not what was written')
    return records


def _records(data: bytes) -> Iterator[tuple[int, memoryview]]:
    view, at = memoryview(data), 0
    while at < len(view):
        op, length = struct.unpack_from('<BQ', view, at)
        yield op, view[at + 9 : at + 9 + length]
        at += 9 + length


def _u16(content: memoryview, at: int) -> int:
    return struct.unpack_from('<H', content, at)[0]


def _text(content: memoryview, at: int) -> tuple[str, int]:
    """Give a text and the place behind it."""
    (length,) = struct.unpack_from('<I', content, at)
    return bytes(content[at + 4 : at + 4 + length]).decode(errors='replace'), at + 4 + length
