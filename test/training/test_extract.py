# SPDX-License-Identifier: Apache-2.0
"""Clips from rosbags: what is paired, what is decoded, what is refused, and nothing by halves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import training.extract
from smoothdino_model.recordings.depth_images import depth_m_from_compressed
from smoothdino_model.recordings.images import rgb_from_compressed
from support.made_camera_bags import (
    COLOUR,
    DEPTH,
    HEIGHT,
    PERIOD_NS,
    WIDTH,
    Bag,
    as_16uc1,
    depth_of,
    picture,
    quantised,
    write_plain,
)
from support.made_jpegs import with_orientation
from support.made_mosaics import MOSAIC_COLOUR, mosaic_of
from support.made_recordings import BAGS, START_NS, K
from training.data.bag_frames import numbers_of, pairs_of
from training.data.clips import find_clips
from training.extract import extract, main

REPOSITORY = Path(__file__).parents[2]


PNG_16 = bytes(12) + cv2.imencode('.png', as_16uc1(depth_of(1)))[1].tobytes()


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize('storage', BAGS)
def test_a_bag_becomes_a_clip_that_training_reads(tmp_path, storage):
    name = 'ride.bag' if storage == 'ros1' else 'ride'
    bag = write_plain(tmp_path / name, storage=storage)
    clip = extract(bag, tmp_path / 'clips', image=COLOUR, depth=DEPTH)
    assert clip == tmp_path / 'clips' / 'ride'
    (found,) = find_clips(tmp_path / 'clips')
    window = found.read(range(8))
    for i in range(8):
        np.testing.assert_allclose(window.depth_m[i], depth_of(i), atol=1e-6)
        np.testing.assert_allclose(window.rgb[i].astype(int), picture(i), atol=2)
    assert window.stamps_ns == tuple(START_NS + i * PERIOD_NS for i in range(8))
    assert found.focal == pytest.approx(K[0] / WIDTH)
    described = json.loads((clip / 'clip.json').read_text())
    assert described['intrinsics']['fy_px'] == K[4]
    assert described['rate_hz'] == pytest.approx(30, rel=1e-3)


@pytest.mark.parametrize(
    'kind', ['32FC1', '16UC1', 'compressedDepth 16UC1', 'compressedDepth 32FC1', '16UC1; png']
)
def test_every_kind_of_depth_is_read(tmp_path, kind):
    png = [cv2.imencode('.png', as_16uc1(depth_of(i)))[1].tobytes() for i in range(3)]
    with Bag(tmp_path / 'bag') as bag:
        for i in range(3):
            stamp_ns = START_NS + i * PERIOD_NS
            bag.image(COLOUR, stamp_ns, picture(i), 'rgb8')
            if kind == '32FC1':
                bag.image(DEPTH, stamp_ns, depth_of(i), kind)
            elif kind == '16UC1':
                bag.image(DEPTH, stamp_ns, as_16uc1(depth_of(i)), kind)
            elif kind == 'compressedDepth 16UC1':
                bag.compressed(DEPTH, stamp_ns, bytes(12) + png[i], '16UC1; compressedDepth png')
            elif kind == 'compressedDepth 32FC1':
                bag.compressed(DEPTH, stamp_ns, quantised(depth_of(i)), '32FC1; compressedDepth')
            else:
                bag.compressed(DEPTH, stamp_ns, png[i], '16UC1; png compressed ')
    clip = extract(tmp_path / 'bag', tmp_path / 'clips', image=COLOUR, depth=DEPTH)
    window = find_clips(clip)[0].read(range(3))
    for i in range(3):
        np.testing.assert_allclose(window.depth_m[i], depth_of(i), atol=0.0011)


@pytest.mark.parametrize(
    ('data', 'form', 'words'),
    [
        (
            PNG_16,
            '16UC1; compressedDepth rvl',
            'at most 33177600 pixels',
        ),
        (PNG_16, 'jpeg', 'expected 16UC1 or 32FC1'),
        (PNG_16, '32FC1; png compressed', 'expected 16UC1 or 32FC1'),
        (PNG_16[12:], '16UC1; compressedDepth', 'something else'),
        (b'', '16UC1; compressedDepth', 'something else'),
        (PNG_16[:60], '16UC1; compressedDepth png', 'one channel of 16 bit'),
        (
            bytes(12) + cv2.imencode('.png', picture(1))[1].tobytes(),
            '16UC1; compressedDepth',
            '16',
        ),
    ],
)
def test_depth_that_is_none_is_refused_in_words(data, form, words):
    with pytest.raises(ValueError, match=words):
        depth_m_from_compressed(data, form=form)


def test_a_jpeg_is_kept_as_it_came(tmp_path):
    jpeg = cv2.imencode('.jpg', picture(3))[1].tobytes()
    with Bag(tmp_path / 'bag') as bag:
        for i in range(2):
            stamp_ns = START_NS + i * PERIOD_NS
            bag.compressed('/cam/image_raw/compressed', stamp_ns, jpeg + bytes(99), 'jpeg')
            bag.image(DEPTH, stamp_ns, depth_of(i), '32FC1')
    clip = extract(
        tmp_path / 'bag', tmp_path / 'clips', image='/cam/image_raw/compressed', depth=DEPTH
    )
    assert (clip / '1.jpg').read_bytes() == jpeg
    assert len(find_clips(clip)[0]) == 2


@pytest.mark.parametrize('kind', ['mosaic', 'turned'])
def test_a_clip_holds_what_the_bag_shows_where_a_file_would_show_another(tmp_path, kind):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    if kind == 'mosaic':
        pixels, form = mosaic_of('rggb', HEIGHT // 2, WIDTH // 2), 'bayer_rggb8'
    else:
        pixels, form = np.dstack([4 * x, 5 * y, 0 * x]).astype(np.uint8), 'bgr8'
    jpeg = cv2.imencode('.jpg', pixels)[1].tobytes()
    if kind == 'turned':
        jpeg = with_orientation(jpeg, 6)
    form += '; jpeg compressed '
    with Bag(tmp_path / 'bag') as bag:
        bag.compressed(COLOUR, START_NS, jpeg, form)
        bag.image(DEPTH, START_NS, depth_of(0), '32FC1')
    clip = extract(tmp_path / 'bag', tmp_path / 'clips', image=COLOUR, depth=DEPTH)
    (rgb,) = find_clips(clip)[0].read([0]).rgb
    shown = rgb_from_compressed(jpeg, form=form)
    np.testing.assert_allclose(rgb.astype(int), shown, atol=12)
    if kind == 'mosaic':
        np.testing.assert_allclose(rgb.mean((0, 1)), MOSAIC_COLOUR, atol=6)


def write_dim(path):
    """The 16-bit grey of a camera of 12 bits, which is bright in its first frame alone."""
    with Bag(path) as bag:
        for i in range(4):
            stamp_ns = START_NS + i * PERIOD_NS
            grey = np.full((HEIGHT, WIDTH), 500 if i else 4095, np.uint16)
            bag.image(COLOUR, stamp_ns, grey, 'mono16')
            bag.image(DEPTH, stamp_ns, as_16uc1(depth_of(i)), '16UC1')
    return path


def grey_of(clip):
    return [round(float(cv2.imread(str(clip / f'{i}.jpg')).mean())) for i in range(1, 5)]


@pytest.mark.parametrize(
    ('bits', 'grey'), [(0, [255, 31, 31, 31]), (12, [255, 31, 31, 31]), (14, [63, 7, 7, 7])]
)
def test_white_is_the_most_that_the_camera_can_send(tmp_path, bits, grey):
    bag = write_dim(tmp_path / 'bag')
    arguments = ['--image', COLOUR, '--depth', DEPTH, '--output', str(tmp_path / 'clips')]
    main([str(bag), *arguments, '--bit-depth', str(bits)])
    clip = tmp_path / 'clips' / 'bag'
    assert grey_of(clip) == grey
    with pytest.raises(ValueError, match='with other settings'):
        extract(bag, tmp_path / 'clips', image=COLOUR, depth=DEPTH, bit_depth=10)
    with pytest.raises(ValueError, match='expected a bit depth of 8 to 16'):
        extract(bag, tmp_path / 'other', image=COLOUR, depth=DEPTH, bit_depth=40)


def test_what_a_broken_off_extraction_saw_of_the_cameras_range_is_seen_again(
    tmp_path, monkeypatch
):
    bag = write_dim(tmp_path / 'bag')
    write = training.extract.write_whole

    def full_disk(path, data):
        if path.name == '3.jpg':
            raise OSError('no space left')
        write(path, data)

    monkeypatch.setattr(training.extract, 'write_whole', full_disk)
    with pytest.raises(OSError, match='no space left'):
        extract(bag, tmp_path / 'clips', image=COLOUR, depth=DEPTH)
    monkeypatch.undo()
    assert grey_of(extract(bag, tmp_path / 'clips', image=COLOUR, depth=DEPTH)) == [
        255,
        31,
        31,
        31,
    ]


def test_pairs_are_mutual_and_within_the_tolerance():
    image_ns = {0: 0, 1: 100, 2: 200, 4: 300}
    depth_ns = {0: 12, 1: 95, 3: 106, 5: 251, 6: 290}
    assert pairs_of(image_ns, depth_ns, 20) == [(0, 0), (1, 1), (4, 6)]
    assert pairs_of(image_ns, depth_ns, 5) == [(1, 1)]
    assert pairs_of(image_ns, {}, 5) == []
    assert pairs_of({3: 40}, {7: 41}, 5) == [(3, 7)]


def test_a_missing_frame_leaves_its_number_out():
    stamps_ns = [i * PERIOD_NS + (i % 3) * 2_000_000 for i in (0, 1, 2, 4, 5, 9)]
    assert numbers_of(stamps_ns) == [1, 2, 3, 5, 6, 10]
    assert numbers_of([7]) == [1]


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path, caplog):
    caplog.set_level('INFO')
    with Bag(tmp_path / 'bag') as bag:
        for i in range(12):
            stamp_ns = START_NS + i * PERIOD_NS
            jpeg = cv2.imencode('.jpg', picture(i))[1].tobytes()
            bag.compressed(COLOUR, stamp_ns, jpeg[: 300 if i == 3 else None], 'jpeg')
            if i == 5:
                continue  # no depth at all
            late = 25_000_000 if i == 7 else 0
            depth_m = np.full_like(depth_of(i), np.nan) if i == 9 else depth_of(i)
            bag.image(DEPTH, stamp_ns + late, depth_m, '32FC1')
        bag.compressed(COLOUR, START_NS + 5, jpeg, 'jpeg', received_ns=stamp_ns + 9)
    clip = extract(tmp_path / 'bag', tmp_path / 'clips', image=COLOUR, depth=DEPTH)
    (found,) = find_clips(clip)
    assert found.numbers == (1, 2, 3, 5, 7, 9, 11, 12)
    assert sorted(files_of(clip)) == sorted(
        ['clip.json', *(f'{n}.{kind}' for n in found.numbers for kind in ('jpg', 'png'))]
    )
    line = next(text for text in caplog.messages if 'frames; left out' in text)
    for part in (
        '8 frames',
        '1 images whose stamps go back',
        '2 images without depth at their time',
        '1 broken images',
        '1 depth images without any depth',
    ):
        assert part in line
    assert 'no camera_info' in caplog.text


def test_depth_of_half_the_size_is_brought_to_the_pictures(tmp_path):
    bag = write_plain(tmp_path / 'bag', 2, height=HEIGHT // 2, width=WIDTH // 2)
    clip = extract(bag, tmp_path / 'clips', image=COLOUR, depth=DEPTH)
    depth_m = find_clips(clip)[0].read([1]).depth_m[0]
    small_m = depth_of(1, HEIGHT // 2, WIDTH // 2)
    np.testing.assert_allclose(depth_m, small_m.repeat(2, 0).repeat(2, 1), atol=1e-6)


def test_depth_of_another_shape_or_another_camera_is_refused(tmp_path):
    bag = write_plain(tmp_path / 'wide', 2, height=36, width=WIDTH)
    with pytest.raises(ValueError, match=r'expected depth aligned .*64x48, got depth of 64x36'):
        extract(bag, tmp_path / 'clips', image=COLOUR, depth=DEPTH)
    with Bag(tmp_path / 'other') as other:
        other.camera_info('/cam/camera_info', START_NS)
        # The same matrix for a picture half as wide is a lens twice as long.
        other.camera_info('/ir/camera_info', START_NS, HEIGHT // 2, WIDTH // 2)
        other.image(COLOUR, START_NS, picture(0), 'rgb8')
        other.image('/ir/depth', START_NS, depth_of(0), '32FC1')
    with pytest.raises(ValueError, match=r'/ir/depth of a camera whose fx is 1\.56'):
        extract(tmp_path / 'other', tmp_path / 'clips', image=COLOUR, depth='/ir/depth')
    assert not [path for path in (tmp_path / 'clips').iterdir() if path.name[0] != '.']


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ('--image /nope --depth /cam/depth', '/cam/image_raw (sensor_msgs/msg/Image)'),
        ('--image /cam/image_raw --depth /nope', '/cam/depth (sensor_msgs/msg/Image)'),
        ('--image /cam/image_raw --depth /cam/depth --tolerance-s 0.001', 'no such pair'),
        ('--image /cam/image_raw --depth /cam/image_raw', 'cannot be read'),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path, capsys, caplog, arguments, words):
    bag = write_plain(tmp_path / 'bag', 2)
    with pytest.raises(SystemExit) as stopped:
        main([str(bag), *arguments.split(), '--output', str(tmp_path / 'clips')])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err + caplog.text
    assert not (tmp_path / 'clips' / 'bag').exists()


def test_a_clip_that_is_there_is_kept_and_one_of_other_settings_refused(tmp_path):
    bag = write_plain(tmp_path / 'bag', 3)
    clip = extract(bag, tmp_path / 'clips', image=COLOUR, depth=DEPTH)
    before = files_of(clip)
    extract(bag, tmp_path / 'clips', image=COLOUR, depth=DEPTH)
    with pytest.raises(ValueError, match='with other settings'):
        extract(bag, tmp_path / 'clips', image=COLOUR, depth=DEPTH, tolerance_s=0.01)
    assert files_of(clip) == before


@pytest.mark.slow
def test_an_extraction_that_is_killed_goes_on_and_ends_with_the_same_bytes(tmp_path):
    bag = write_plain(tmp_path / 'bag', 200)
    alone = extract(bag, tmp_path / 'alone', image=COLOUR, depth=DEPTH)
    command = [sys.executable, '-m', 'training.extract', str(bag)]
    command += ['--image', COLOUR, '--depth', DEPTH, '--output', str(tmp_path / 'killed')]
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    partial = tmp_path / 'killed' / '.bag.partial'
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (partial / '40.jpg').exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (partial / '.199.jpg.0badcafe.partial').mkdir()  # as where it was in the midst of a file
    assert not (tmp_path / 'killed' / 'bag').exists()
    begun = {path.name: path.stat().st_mtime_ns for path in partial.glob('*.jpg')}
    assert begun
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    clip = tmp_path / 'killed' / 'bag'
    assert files_of(clip) == files_of(alone)
    assert {name: (clip / name).stat().st_mtime_ns for name in begun} == begun
    assert not partial.exists()
