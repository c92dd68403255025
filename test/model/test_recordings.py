# SPDX-License-Identifier: Apache-2.0
"""Folders, videos and bags give the same frames in the same order, or say why not."""

import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
from rosbags.rosbag2 import Writer

from smoothdino_model.recordings.frames import Intrinsics, RecordingError
from smoothdino_model.recordings.open import open_recording
from support.made_recordings import (
    BAGS,
    PERIOD_NS,
    START_NS,
    pictures,
    place_of,
    write_bag,
    write_folder,
    write_video,
)

BAG_NAMES = {'sqlite3': 'made', 'mcap': 'made', 'ros1': 'made.bag'}
KINDS = ['folder', 'avi', 'mp4', *BAGS]


def write(kind, tmp_path, frames):
    if kind == 'folder':
        return write_folder(tmp_path / 'folder', frames)
    if kind in ('avi', 'mp4'):
        codec = 'MJPG' if kind == 'avi' else 'mp4v'
        return write_video(tmp_path / f'video.{kind}', frames, codec)
    return write_bag(tmp_path / BAG_NAMES[kind], frames, kind)


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_gives_all_frames_in_order_and_again(kind, tmp_path):
    frames = pictures()
    with open_recording(write(kind, tmp_path, frames)) as recording:
        assert recording.kind == {'avi': 'video', 'mp4': 'video', 'folder': 'folder'}.get(
            kind, 'bag'
        )
        assert len(recording) == len(frames)
        got = list(recording)
        assert [f.name for f in recording] == [f.name for f in got]
    assert [place_of(frame.rgb) for frame in got] == list(range(len(frames)))
    assert len({frame.name for frame in got}) == len(frames)
    assert all(np.diff([frame.stamp_ns for frame in got]) > 0)
    for frame, rgb in zip(got, frames, strict=True):
        assert frame.rgb.dtype == np.uint8
        assert frame.rgb.flags.c_contiguous
        np.testing.assert_allclose(
            frame.rgb.astype(int), rgb, atol=8 if kind in ('avi', 'mp4') else 0
        )


def test_frames_carry_the_times_and_the_names_of_their_container(tmp_path):
    frames = pictures(4)
    folder = list(open_recording(write_folder(tmp_path / 'folder', frames)))
    assert [f.name for f in folder] == ['1', '2', '3', '4']
    video = list(open_recording(write_video(tmp_path / 'video.avi', frames, rate_hz=25)))
    assert [f.stamp_ns for f in video] == [i * PERIOD_NS for i in range(4)]
    assert video[3].name == 'frame_000003'
    with open_recording(write_bag(tmp_path / 'bag', frames)) as recording:
        bag = list(recording)
    assert [f.stamp_ns for f in bag] == [START_NS + i * PERIOD_NS for i in range(4)]
    assert bag[1].name == str(START_NS + PERIOD_NS)


@pytest.mark.parametrize('storage', BAGS)
def test_a_bag_gives_the_intrinsics_beside_its_images(storage, tmp_path):
    path = write_bag(tmp_path / BAG_NAMES[storage], pictures(2), storage)
    with open_recording(path) as recording:
        for frame in recording:
            assert frame.intrinsics == Intrinsics(50, 51, 32, 24, width=64, height=48)


def test_a_bag_without_header_stamps_gives_the_time_of_receipt(tmp_path):
    with open_recording(write_bag(tmp_path / 'bag', pictures(2), stamp=False)) as recording:
        assert [f.stamp_ns for f in recording] == [START_NS + 5, START_NS + PERIOD_NS + 5]


def test_the_single_file_of_a_bag_is_enough(tmp_path):
    for storage, suffix in (('mcap', '.mcap'), ('sqlite3', '.db3')):
        (file,) = write_bag(tmp_path / storage, pictures(3), storage).glob(f'*{suffix}')
        shutil.move(file, tmp_path / file.name)
        with open_recording(tmp_path / file.name) as recording:
            assert [place_of(f.rgb) for f in recording] == [0, 1, 2]


def test_a_bag_with_several_image_topics_lists_them_and_takes_the_one_named(tmp_path):
    topics = ('/cam/image_raw', '/cam/image_raw/compressed')
    path = write_bag(tmp_path / 'bag', pictures(3), topics=topics)
    listed = r'/cam/image_raw \(sensor_msgs/msg/Image\), /cam/image_raw/compressed \(sensor'
    with pytest.raises(RecordingError, match=listed):
        open_recording(path)
    with pytest.raises(RecordingError, match=rf'got /other: there are {listed}'):
        open_recording(path, topic='/other')
    for topic in topics:
        with open_recording(path, topic=topic) as recording:
            frames = list(recording)
        assert [place_of(f.rgb) for f in frames] == [0, 1, 2]
        assert frames[0].intrinsics is not None


def test_a_depth_topic_is_not_taken_for_colours(tmp_path):
    with pytest.raises(RecordingError, match='expected one topic with colour images'):
        open_recording(write_bag(tmp_path / 'bag', pictures(2), encoding='32FC1'))


def test_an_image_that_does_not_decode_is_named_by_its_stamp_and_topic(tmp_path):
    path = write_bag(tmp_path / 'bag', pictures(2), encoding='h264')
    with (
        open_recording(path) as recording,
        pytest.raises(RecordingError, match=rf'{START_NS} ns on /cam/image_raw in .* rgb8'),
    ):
        list(recording)


def test_frames_of_one_stamp_get_different_names(tmp_path, monkeypatch):
    monkeypatch.setattr('support.made_recordings.PERIOD_NS', 0)
    with open_recording(write_bag(tmp_path / 'bag', pictures(3))) as recording:
        assert [f.name for f in recording] == [f'{START_NS}{end}' for end in ('', '_1', '_2')]


def test_what_is_no_recording_is_refused_in_words(tmp_path):
    (tmp_path / 'empty').mkdir()
    for name in ('a.txt', 'a.jpg', 'a.mp4', 'a.bag', 'a.mcap', 'a.db3'):
        (tmp_path / name).write_bytes(b'nothing of the kind')
    for name in ('bad_bag', 'folder.bag'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'metadata.yaml').write_text('rosbag2_bagfile_information: [1')
    (tmp_path / 'unindexed').mkdir()
    (tmp_path / 'unindexed' / 'x.mcap').write_bytes(b'')
    reasons = {
        'missing': 'no such file',
        'empty': 'expected images .* got none: give the folder',
        'unindexed': r'rosbag without metadata\.yaml',
        'a.txt': 'expected a folder of images, a video or a rosbag',
        'a.jpg': 'give its folder',
        'a.mp4': 'expected a video that OpenCV can read',
        'a.bag': 'cannot be read as a rosbag',
        'a.mcap': 'cannot be read as a rosbag',
        'a.db3': 'cannot be read as a rosbag',
        'bad_bag': 'cannot be read as a rosbag',
        'folder.bag': r'does not end in \.bag',
    }
    for name, reason in reasons.items():
        with pytest.raises(RecordingError, match=reason) as caught:
            open_recording(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(RecordingError, match='expected a rosbag to read the topic /t from'):
        open_recording(tmp_path / 'empty', topic='/t')


@pytest.mark.parametrize('cut_at', [0.5, 0.8, 0.999])
def test_an_mcap_cut_short_gives_its_whole_frames_and_a_warning(cut_at, tmp_path, caplog):
    path = write_bag(tmp_path / 'bag', pictures(12, height=240, width=320))
    with open_recording(path) as recording:
        whole = list(recording)
    file = path / 'bag.mcap'
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * cut_at)])
    for given in (path, file):
        with caplog.at_level(logging.WARNING), open_recording(given) as recording:
            frames = list(recording)
            assert len(recording) == len(frames)
        assert 12 * cut_at - 6 < len(frames) <= 12 * cut_at + 1  # a chunk holds five
        assert [f.stamp_ns for f in frames] == [f.stamp_ns for f in whole[: len(frames)]]
        assert [place_of(f.rgb) for f in frames] == list(range(len(frames)))
        assert all(f.intrinsics == whole[0].intrinsics for f in frames)
        assert f'{file} is cut short' in caplog.text
        caplog.clear()


def test_topics_that_cross_in_an_mcap_cut_short_are_put_in_order(tmp_path, monkeypatch):
    written: list[tuple[int, str]] = []
    write = Writer.write

    def out_of_step(writer, connection, timestamp, data):
        at_ns = timestamp - (PERIOD_NS // 2 if connection.topic == '/cam/camera_info' else 0)
        written.append((at_ns, connection.topic))
        write(writer, connection, at_ns, data)

    monkeypatch.setattr(Writer, 'write', out_of_step)
    path = write_bag(
        tmp_path / 'bag', pictures(4), topics=('/cam/image_raw', '/cam/left/image_raw')
    )
    assert written != sorted(written)
    file = path / 'bag.mcap'
    file.write_bytes(file.read_bytes()[:-1])
    topics = {'topic': '/cam/image_raw', 'info_topic': '/cam/camera_info'}
    with open_recording(path, **topics) as recording:
        received = list(recording.messages())
        assert [place_of(frame.rgb) for frame in recording] == [0, 1, 2, 3]
    assert [(one.received_ns, one.topic) for one in received] == sorted(
        one for one in written if 'left' not in one[1]
    )


@pytest.mark.parametrize('storage', BAGS)
def test_a_bag_without_a_whole_frame_is_refused_in_words(storage, tmp_path):
    path = write_bag(tmp_path / BAG_NAMES[storage], pictures(40), storage)
    file = path if path.is_file() else next(p for p in path.iterdir() if p.suffix != '.yaml')
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with (
        pytest.raises(RecordingError, match=BAG_NAMES[storage]),
        open_recording(path) as recording,
    ):
        list(recording)


def test_rosbags_is_loaded_for_bags_only(tmp_path):
    path = write_folder(tmp_path / 'folder', pictures(1))
    program = (
        'import sys; from smoothdino_model.recordings.open import open_recording; '
        f'list(open_recording({str(path)!r})); sys.exit("rosbags" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', program]).returncode == 0
