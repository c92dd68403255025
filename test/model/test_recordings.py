# SPDX-License-Identifier: Apache-2.0
"""Folders, videos and bags give the same frames in the same order, or say why not."""

import logging
import shutil
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Writer

from smoothdino_model.recordings.frames import Intrinsics, RecordingError
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.recordings.pages import pages_of
from smoothdino_model.recordings.video_codec import codec_of
from support.made_matroska import write_matroska
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


def test_pictures_of_a_folder_come_in_natural_order_under_unique_names(tmp_path):
    for name in ('10.jpg', '9.bmp', '2.JPG', 'a.txt', '.hidden.jpg', '2.bmp'):
        (tmp_path / name).write_bytes(cv2.imencode('.bmp', pictures(1)[0])[1].tobytes())
    assert [f.name for f in open_recording(tmp_path)] == ['2', '2_1', '9', '10']


def test_a_grey_png_beside_a_jpeg_is_its_depth(tmp_path):
    rgb = pictures(1)[0]
    depth: dict[str, np.ndarray] = {
        'eight': np.array([[0, 51], [102, 255]], np.uint8),
        'sixteen': np.array([[0, 1], [1500, 9]], np.uint16),
    }
    metres: dict[str, list] = {
        'eight': [[np.nan, 2], [4, 10]],
        'sixteen': [[np.nan, 0.001], [1.5, 0.009]],
    }
    for name, stored in depth.items():
        assert cv2.imwrite(str(tmp_path / f'{name}.jpg'), rgb)
        large = np.kron(stored, np.ones((24, 32), stored.dtype))
        assert cv2.imwrite(str(tmp_path / f'{name}.png'), large)
    assert cv2.imwrite(str(tmp_path / 'third.png'), rgb)
    frames = {f.name: f for f in open_recording(tmp_path)}
    assert set(frames) == {'eight', 'sixteen', 'third'}
    assert frames['third'].depth_m is None
    for name, expected in metres.items():
        depth_m = frames[name].depth_m
        assert depth_m is not None
        assert depth_m.dtype == np.float32
        assert depth_m.shape == rgb.shape[:2]
        np.testing.assert_allclose(depth_m[::24, ::32], expected, rtol=1e-6)
    assert cv2.imwrite(str(tmp_path / 'eight.png'), depth['eight'])
    with pytest.raises(
        RecordingError, match=r'eight\.jpg .*expected a depth PNG .*64x48, got 2x2'
    ):
        list(open_recording(tmp_path))


def test_an_nyu_clip_gives_pictures_with_depth(nyu_root):
    clip = min((nyu_root / 'nyu2_train').iterdir())
    recording = open_recording(clip)
    assert len(recording) == len(list(clip.glob('*.jpg')))
    numbers = []
    for frame, _ in zip(recording, range(12), strict=False):
        numbers.append(int(frame.name))
        assert frame.rgb.shape == (480, 640, 3)
        assert frame.depth_m is not None
        assert frame.depth_m.shape == (480, 640)
        assert 0.2 < np.nanmedian(frame.depth_m) <= 10
        assert np.nanmin(frame.depth_m) > 0
    assert numbers == sorted(numbers)


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


def test_a_broken_picture_is_named(tmp_path):
    path = write_folder(tmp_path / 'folder', pictures(3))
    (path / '2.png').write_bytes((path / '2.png').read_bytes()[:40])
    frames = iter(open_recording(path))
    assert next(frames).name == '1'
    with pytest.raises(RecordingError, match=r'folder/2\.png cannot be read: expected a whole'):
        next(frames)


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


def tiff_of(pages, thumbnails=0):
    """Pages of one grey pixel in little-endian TIFF; thumbnails say that they are."""
    data = b'II*\0' + struct.pack('<I', 8)
    for i in range(pages + thumbnails):
        tags = [(254, 4, 1, int(i >= pages)), (256, 3, 1, 1)]
        entries = b''.join(struct.pack('<HHII', *tag) for tag in tags)
        after = len(data) + 2 + len(entries) + 4 if i + 1 < pages + thumbnails else 0
        data += struct.pack('<H', len(tags)) + entries + struct.pack('<I', after)
    return data


def test_pages_are_counted_by_the_structure_of_the_file():
    assert [pages_of(tiff_of(n, 2)) for n in (1, 2, 5)] == [1, 2, 5]
    assert pages_of(tiff_of(3)[:-9]) == 1  # breaks off
    chunks = [(b'VP8X', bytes(10)), (b'ANIM', bytes(6)), *[(b'ANMF', bytes(17))] * 4]
    body = b''.join(n + struct.pack('<I', len(c)) + c + bytes(len(c) % 2) for n, c in chunks)
    assert pages_of(b'RIFF' + struct.pack('<I', len(body) + 4) + b'WEBP' + body) == 4
    for extension in ('.png', '.webp', '.tiff', '.jpg'):
        assert pages_of(cv2.imencode(extension, pictures(1)[0])[1].tobytes()) == 1


def test_what_is_not_read_of_a_folder_is_said(tmp_path, caplog):
    for i in range(2):
        saved = cv2.imwritemulti(str(tmp_path / f'{i}.tiff'), pictures(3))
        assert saved
    for name in ('a.HEIC', 'b.heic', 'c.avif', 'notes.txt', '.hidden.heic'):
        (tmp_path / name).write_bytes(b'')
    assert [place_of(frame.rgb) for frame in open_recording(tmp_path)] == [0, 0]
    assert 'kinds that are not read: ' in caplog.text
    for part in ('2 .heic', '1 .avif'):
        assert part in caplog.text
    assert 'txt' not in caplog.text
    assert caplog.text.count('0.tiff holds 3 pictures, and the first is read') == 1
    assert caplog.text.count(' pictures, and the first') == 1
    for path in tmp_path.glob('*.tiff'):
        path.unlink()
    with pytest.raises(RecordingError, match=r'got none: convert what is there \(.*2 \.heic'):
        open_recording(tmp_path)


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
