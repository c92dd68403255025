# SPDX-License-Identifier: Apache-2.0
"""What a JPEG shows of itself before it is decoded (ITU-T T.81): its size, and some damage.

libjpeg mends what is broken and goes on, with a picture of which the rest is no scene, and OpenCV
does not pass on that it did. A whole check would be a decoder; what is found here is what cameras
and networks lose most often, parts that never came: a hole of zeros, and intervals between restart
markers that are missing. Bytes that were changed otherwise are not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

START = b'\xff\xd8'
_SOF, _DHT, _SOS, _DRI = range(0xC0, 0xD0), 0xC4, 0xDA, 0xDD
# In the tables that cameras use, zero bits are one frequency of -1 after the other, 3 bits each:
# so many bytes of them are a block of 8x8 pixels with all of its 63, and no picture.
_HOLE = bytes(32)


@dataclass(frozen=True)
class Jpeg:
    """The header of a JPEG, and where its first scan lies in the data.

    ``block`` is (width, height) in pixels of what one step of the scan codes, ``interval`` the
    steps between restart markers (0: there are none). ``is_plain`` is whether this scan codes the
    whole picture, ``zeros_are_end`` whether zero bits may be blocks without any frequency.
    """

    width: int
    height: int
    block: tuple[int, int]
    interval: int
    is_plain: bool
    zeros_are_end: bool
    scan: slice


def header_of(data: bytes) -> Jpeg | None:
    """Read the header, None where there is none.

    Finds the markers as libjpeg does, which skips what lies between its segments.
    Raises ValueError for a JPEG without its end mark: older OpenCV fills the rest with grey.
    """
    frame, coding, interval, zeros_are_end, at = b'', 0, 0, False, 2
    while 0 <= (at := data.find(b'\xff', at)) < len(data) - 8:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7:  # no segment follows
            at += 2
            continue
        after = at + 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
        segment = data[at + 4 : after]
        if marker == _SOS:  # the scan follows, in which FF D9 is the end and nothing else
            end = data.find(b'\xff\xd9', at)
            if end < 0:
                raise ValueError(f'expected a whole JPEG, got {len(data)} bytes without its end')
            if len(frame) < 6:
                return None
            return _header(frame, coding, segment[:1], interval, zeros_are_end, slice(after, end))
        if marker in _SOF and marker not in (_DHT, 0xC8, 0xCC):
            frame, coding = segment, marker
        elif marker == _DHT:
            zeros_are_end |= _zeros_are_end(segment)
        elif marker == _DRI:
            interval = int.from_bytes(segment[:2], 'big')
        at = after
    return None


def _header(
    frame: bytes, coding: int, in_scan: bytes, interval: int, zeros_are_end: bool, scan: slice
) -> Jpeg:
    height, width = int.from_bytes(frame[1:3], 'big'), int.from_bytes(frame[3:5], 'big')
    components = frame[5]
    sampling = frame[7 : 6 + 3 * components : 3] if components > 1 else b'\x11'
    across = max((one >> 4 for one in sampling), default=1)
    down = max((one & 15 for one in sampling), default=1)
    return Jpeg(
        width,
        height,
        (8 * max(across, 1), 8 * max(down, 1)),
        interval,
        is_plain=coding in (0xC0, 0xC1) and in_scan == frame[5:6],
        zeros_are_end=zeros_are_end,
        scan=scan,
    )


def _zeros_are_end(tables: bytes) -> bool:
    """Tell of the first table of frequencies in a DHT whether zeros are other than one value."""
    at = 0
    while at + 17 < len(tables):
        if tables[at] == 0x10:  # the table of brightness; its first symbol has the code of zeros
            return not 0 < tables[at + 17] <= 0x0F
        at += 17 + sum(tables[at + 1 : at + 17])
    return False


def check_scan(data: bytes, jpeg: Jpeg) -> None:
    """Raise ValueError where a part of the picture never came, as far as it shows."""
    if not jpeg.is_plain:
        return
    scan = data[jpeg.scan].rstrip(b'\0')  # some cameras fill up before the end mark
    hole = -1 if jpeg.zeros_are_end else scan.find(_HOLE)
    if hole >= 0:
        raise ValueError(
            f'expected a whole JPEG, got one of {len(data)} bytes with a hole of zeros at byte '
            f'{jpeg.scan.start + hole}: a part of the picture was lost on the way'
        )
    raw = np.frombuffer(scan, np.uint8)
    following = raw[1:][raw[:-1] == 0xFF]
    markers = following[(following != 0x00) & (following != 0xFF)]
    across, down = -(-jpeg.width // jpeg.block[0]), -(-jpeg.height // jpeg.block[1])
    due = (across * down - 1) // jpeg.interval if jpeg.interval else 0
    if not np.array_equal(markers[:due], 0xD0 + np.arange(due) % 8) or len(markers) > due + 1:
        raise ValueError(
            f'expected a whole JPEG with {due} restart markers in turn, got {len(markers)} or '
            'others: a part of the picture was lost on the way'
        )
