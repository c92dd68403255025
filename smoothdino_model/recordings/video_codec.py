# SPDX-License-Identifier: Apache-2.0
"""The codec of a video that OpenCV cannot open, by the structure of its container."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

_HEAD = 1 << 20  # in which AVI and Matroska name their codecs


def codec_of(path: Path) -> str | None:
    """The name that AVI, MP4, MOV, Matroska or WebM gives its video's codec, None of others."""
    with path.open('rb') as file:
        head = file.read(_HEAD)
        if head[:4] == b'RIFF' and head[8:12] == b'AVI ':
            found = re.search(rb'strh.{4}vids(.{4})', head, re.DOTALL)
        elif head[:4] == b'\x1a\x45\xdf\xa3':
            found = re.search(rb'\x86[\x80-\xff](V_[A-Z0-9_/]+)', head)
        elif head[4:8] == b'ftyp':
            moov = _box(file, b'moov', path.stat().st_size)
            # The sample description of the first track that is handled as video.
            found = re.search(rb'hdlr.{8}vide.*?stsd.{12}(.{4})', moov, re.DOTALL)
        else:
            return None
    return found[1].decode('ascii', 'replace').strip() if found else None


def _box(file: BinaryIO, wanted: bytes, size: int) -> bytes:
    """The content of a box of an MP4's top level, which may stand at its end."""
    at = 0
    while at + 16 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], 'big')
        if length == 1:
            length = int.from_bytes(head[8:], 'big')
        if head[4:8] == wanted:
            file.seek(at + 8)
            return file.read(min(length, 1 << 26))
        if length < 8:  # up to the end of the file
            break
        at += length
    return b''
