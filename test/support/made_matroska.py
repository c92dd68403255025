# SPDX-License-Identifier: Apache-2.0
"""Matroska with frames at any time, written for the tests: OpenCV writes constant rates alone."""

import struct

import cv2


def _element(name, *content):
    data = b''.join(content)
    return bytes.fromhex(name) + (len(data) | 1 << 56).to_bytes(8, 'big') + data


def _number(name, value):
    return _element(name, value.to_bytes(8, 'big'))


def write_matroska(path, frames, times_ms, duration_ms, shown=None):
    """RGB pictures as JPEGs, each at its time; the first is at 0. Shown as (width, height)."""
    height, width = frames[0].shape[:2]
    shown_width, shown_height = shown or (width, height)
    head = _element(
        '1A45DFA3',
        *(_number('4286', 1), _number('42F7', 1), _number('42F2', 4), _number('42F3', 8)),
        *(_element('4282', b'matroska'), _number('4287', 4), _number('4285', 2)),
    )
    info = _element(
        '1549A966', _number('2AD7B1', 1_000_000), _element('4489', struct.pack('>d', duration_ms))
    )
    size = _element(
        'E0',
        *(_number('B0', width), _number('BA', height)),
        *(_number('54B0', shown_width), _number('54BA', shown_height)),
    )
    track = _element(
        'AE',
        *(_number('D7', 1), _number('73C5', 1), _number('83', 1)),
        _element('86', b'V_MJPEG'),
        size,
    )
    blocks = [
        _element(
            'A3',
            b'\x81' + struct.pack('>hB', time_ms, 0x80),
            cv2.imencode('.jpg', rgb[..., ::-1])[1].tobytes(),
        )
        for rgb, time_ms in zip(frames, times_ms, strict=True)
    ]
    cluster = _element('1F43B675', _number('E7', 0), *blocks)
    path.write_bytes(head + _element('18538067', info, _element('1654AE6B', track), cluster))
    return path
