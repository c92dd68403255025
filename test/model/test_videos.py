# SPDX-License-Identifier: Apache-2.0
"""A video gives all of its frames at their times, and says where it is cut or not decoded."""

import logging

import pytest

from smoothdino_model.recordings.frames import RecordingError
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.recordings.video_codec import codec_of
from support.made_matroska import write_matroska
from support.made_recordings import (
    pictures,
    place_of,
    write_folder,
    write_video,
)


def test_a_video_cut_short_gives_its_whole_frames_and_a_warning(tmp_path, caplog):
    path = write_video(tmp_path / 'video.avi', pictures(16))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.85)])
    with caplog.at_level(logging.WARNING):
        frames = list(open_recording(path))
    assert 0 < len(frames) < 16
    assert f'gave {len(frames)} of its 16 frames: cut short' in caplog.text


TIMES_MS = [0, 40, 80, 500, 1000, 1040, 1700]


@pytest.mark.parametrize('suffix', ['.mkv', '.webm'])
def test_a_video_of_variable_rate_is_whole(suffix, tmp_path, caplog):
    path = write_matroska(tmp_path / f'video{suffix}', pictures(7), TIMES_MS, 2040)
    video = open_recording(path)
    frames = list(video)
    assert [round(f.stamp_ns / 1e6) for f in frames] == TIMES_MS
    assert [place_of(f.rgb) for f in frames] == list(range(7))
    assert not video.lost
    assert not caplog.text


def test_a_video_of_variable_rate_that_ends_before_its_time_is_said_to_be_cut(tmp_path, caplog):
    path = write_matroska(tmp_path / 'video.mkv', pictures(7), TIMES_MS, 6000)
    video = open_recording(path)
    assert len(list(video)) == 7
    assert 'cut short' in caplog.text
    assert len(video.lost) == 1


@pytest.mark.parametrize(('shown_width', 'is_doubted'), [(64, False), (96, True)])
def test_pixels_that_are_not_square_are_said(shown_width, is_doubted, tmp_path, caplog):
    path = write_matroska(
        tmp_path / 'video.mkv', pictures(2), [0, 40], 80, shown=(shown_width, 48)
    )
    doubts = open_recording(path).doubts
    assert len(doubts) == caplog.text.count('are not square (3:2)') == is_doubted


def test_a_codec_that_opencv_lacks_is_named(tmp_path, capfd):
    for name, codec, given, unknown, shown in (
        ('a.avi', 'MJPG', b'MJPG', b'ZQZQ', 'ZQZQ'),
        ('b.mkv', 'MJPG', b'V_MJPEG', b'V_ZQZQZ', 'V_ZQZQZ'),
    ):
        path = write_video(tmp_path / name, pictures(3), codec)
        path.write_bytes(path.read_bytes().replace(given, unknown))
        with pytest.raises(RecordingError, match=f'no decoder for its codec {shown}'):
            open_recording(path)
    assert codec_of(write_video(tmp_path / 'c.mp4', pictures(3), 'mp4v')) == 'mp4v'
    assert codec_of(write_folder(tmp_path / 'folder', pictures(1)) / '1.png') is None
