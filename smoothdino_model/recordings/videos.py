# SPDX-License-Identifier: Apache-2.0
"""A video file as a recording."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2

from smoothdino_model.recordings.frames import (
    PERIOD_NS,
    SQUARE,
    Frame,
    Recording,
    RecordingError,
)
from smoothdino_model.recordings.video_codec import codec_of

VIDEOS = (
    *('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.ts', '.mts', '.m2ts'),
    *('.ogv', '.wmv', '.flv', '.3gp', '.gif', '.mjpg', '.mjpeg', '.h264', '.hevc', '.y4m'),
)

_log = logging.getLogger(__name__)


class VideoRecording(Recording):
    """A video file as OpenCV reads it; stamps are the container's, from the first frame on."""

    kind = 'video'

    def __init__(self, path: Path) -> None:
        self._path = path
        video = self._open()
        self._count = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        across, down = video.get(cv2.CAP_PROP_SAR_NUM), video.get(cv2.CAP_PROP_SAR_DEN)
        video.release()
        if across > 0 and down > 0 and abs(across / down - 1) > SQUARE:
            squeezed = (
                f'the pixels of the video {path} are not square ({across:g}:{down:g}): depth is '
                'that of the picture as it is stored, and off; ffmpeg -i IN -vf '
                'scale=iw*sar:ih,setsar=1 OUT makes them so'
            )
            self.doubts = (squeezed,)
            _log.warning('%s', squeezed)

    def _open(self) -> cv2.VideoCapture:
        video = cv2.VideoCapture(str(self._path))
        if not video.isOpened():
            raise RecordingError(
                f'expected a video that OpenCV can read, got {self._path}: {self._why_not()}'
            )
        return video

    def _why_not(self) -> str:
        codec = codec_of(self._path)
        if codec is None:
            return 'it is empty, cut short or in an unknown format'
        return (
            f'this OpenCV has no decoder for its codec {codec}, or it is damaged: convert it '
            '(ffmpeg -i IN -c:v libx264 OUT.mp4)'
        )

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        video = self._open()
        try:
            rate_hz = video.get(cv2.CAP_PROP_FPS)
            period_ns = round(1e9 / rate_hz) if 0 < rate_hz < 1e6 else PERIOD_NS
            stamp_ns, i = -period_ns, 0
            longest_ns = period_ns
            self.lost = ()
            while (read := video.read())[0]:
                position_ns = round(video.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                # Some containers give no position or repeat one.
                before_ns = stamp_ns
                stamp_ns = position_ns if position_ns > stamp_ns else stamp_ns + period_ns
                longest_ns = max(longest_ns, stamp_ns - before_ns)
                rgb = cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
                yield Frame(f'frame_{i:06d}', stamp_ns, rgb)
                i += 1
        finally:
            video.release()
        if i == 0:
            raise RecordingError(
                f'expected frames in the video {self._path}, got none: {self._why_not()}'
            )
        # Of containers that count no frames, OpenCV takes duration times rate for a count: a
        # video of fewer frames is whole if the last of them can last until its end.
        unseen_ns = self._count * period_ns - (stamp_ns + longest_ns)
        if i < self._count and unseen_ns >= period_ns / 2:
            lost = f'the video {self._path} gave {i} of its {self._count} frames: cut short'
            self.lost = (f'{lost} or damaged',)
            _log.warning('%s', self.lost[0])
