# SPDX-License-Identifier: Apache-2.0
"""An mcap file without its end, as a recorder leaves it that was killed, made readable.

An mcap file is a row of records (opcode, length, content) and ends with an index and a magic
number. Without that end rosbags refuses it, though the records before the cut are whole. The file
itself is left as it is.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

MAGIC = b'\x89MCAP0\r\n'
_FOOTER = b'\x02' + (20).to_bytes(8, 'little') + bytes(20)  # that there is no index


def lacks_its_end(path: Path) -> bool:
    """Whether the file begins as an mcap and does not end as one."""
    with path.open('rb') as file:
        if file.read(len(MAGIC)) != MAGIC:
            return False
        file.seek(-len(MAGIC), os.SEEK_END)
        return file.read() != MAGIC


class CutMcap:
    """Stands for the path of a cut file where rosbags takes one, and opens it up to the cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.whole = _end_of_last_whole_record(path, self.size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.path, name)

    def __str__(self) -> str:
        return str(self.path)

    def open(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_Mended(self.path, self.whole))

    def loss(self) -> str:
        """In words, what of the file cannot be read."""
        return (
            f'it ends without an index, and the last {self.size - self.whole} of its {self.size} '
            'bytes are no whole record'
        )


class _Mended(io.RawIOBase):
    """The first bytes of a file and then the end of an mcap without an index."""

    def __init__(self, path: Path, whole: int) -> None:
        self._file = path.open('rb')
        self._whole = whole
        self._end = _FOOTER + MAGIC
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._whole + len(self._end)}
        self._at = start[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        if self._at < self._whole:
            self._file.seek(self._at)
            got = self._file.read(min(wanted, self._whole - self._at))
        else:
            got = self._end[self._at - self._whole :][:wanted]
        buffer[: len(got)] = got
        self._at += len(got)
        return len(got)

    def close(self) -> None:
        self._file.close()
        super().close()


def _end_of_last_whole_record(path: Path, size: int) -> int:
    at = len(MAGIC)
    with path.open('rb') as file:
        while True:
            file.seek(at)
            head = file.read(9)
            # 0x0F ends the data; zeros are what a file system that lost power may leave.
            if len(head) < 9 or head[0] in (0x00, 0x0F):
                return at
            after = at + 9 + int.from_bytes(head[1:], 'little')
            if after > size:
                return at
            at = after
