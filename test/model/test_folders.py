# SPDX-License-Identifier: Apache-2.0
"""A folder gives its pictures in natural order, with their depth, and says what it leaves out."""

import struct

import cv2
import numpy as np
import pytest

from smoothdino_model.recordings.frames import RecordingError
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.recordings.pages import pages_of
from support.made_recordings import (
    pictures,
    place_of,
    write_folder,
)


def test_pictures_of_a_folder_come_in_natural_order_under_unique_names(tmp_path):
    for name in ('10.jpg', '9.bmp', '2.JPG', 'a.txt', '.hidden.jpg', '2.bmp', '11.jfif'):
        (tmp_path / name).write_bytes(cv2.imencode('.bmp', pictures(1)[0])[1].tobytes())
    assert [f.name for f in open_recording(tmp_path)] == ['2', '2_1', '9', '10', '11']


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


def test_a_broken_picture_is_named(tmp_path):
    path = write_folder(tmp_path / 'folder', pictures(3))
    (path / '2.png').write_bytes((path / '2.png').read_bytes()[:40])
    frames = iter(open_recording(path))
    assert next(frames).name == '1'
    with pytest.raises(RecordingError, match=r'folder/2\.png cannot be read: expected a whole'):
        next(frames)


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


@pytest.mark.parametrize(
    ('colour', 'depth'),
    [('{}.color.png', '{}.depth.png'), ('{}.color.jpg', '{}.depth.png'), ('r-{}.ppm', 'd-{}.pgm')],
)
def test_depth_beside_colours_is_no_picture(colour, depth, tmp_path):
    """As 7-Scenes, ScanNet and the raw frames of NYUv2 have it."""
    for i, rgb in enumerate(pictures(2)):
        assert cv2.imwrite(str(tmp_path / colour.format(i)), rgb)
        assert cv2.imwrite(str(tmp_path / depth.format(i)), np.full((48, 64), 1500, np.uint16))
    with pytest.raises(RecordingError, match=f'{colour.format(0)} and, of one channel of 16 bit'):
        open_recording(tmp_path)
    for i in range(2):
        (tmp_path / depth.format(i)).unlink()
    assert len(list(open_recording(tmp_path))) == 2


def test_a_link_that_leads_nowhere_is_a_picture_that_cannot_be_read(tmp_path):
    write_folder(tmp_path / 'folder', pictures(1))
    (tmp_path / 'folder/2.png').symlink_to(tmp_path / 'gone.png')
    with pytest.raises(RecordingError, match=r'2\.png cannot be read: .*No such file'):
        list(open_recording(tmp_path / 'folder'))


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
