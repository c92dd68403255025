# SPDX-License-Identifier: Apache-2.0
"""What training and validation see: clips on disk, runs of frames, rooms, and their mixture."""

import json
import logging
import math
from itertools import pairwise

import cv2
import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from smoothdino_model.network.trained_camera import NYU
from support.made_clips import numbers_of, write_clip
from training.data import room as room_module
from training.data.augment import augmented
from training.data.clips import TRAINED_FOCAL, Window, find_clips
from training.data.data_module import ClipSource, FromStep, WindowData, WindowShape
from training.data.datasets import turn_of
from training.data.room import SHOWINGS, STRIPES, RoomWindows
from training.data.runs import RunWindows, block_runs, listed_runs, whole_runs

CAMERA = {'fx_px': 40.0, 'fy_px': 40.0, 'cx_px': 15.5, 'cy_px': 11.5, 'width': 32, 'height': 24}


def room_data(**settings) -> WindowData:
    small = {
        'windows': WindowShape((28, 42), frames=2),
        'room_share': 1.0,
        'batch_size': 2,
        'seed': 3,
    }
    return WindowData(**small | settings)


# clips on disk


@pytest.mark.parametrize('eight_bit', [False, True])
def test_a_clip_gives_metres_and_knows_what_it_does_not_know(tmp_path, eight_bit):
    write_clip(tmp_path / 'hall', range(1, 6), eight_bit=eight_bit)
    (clip,) = find_clips(tmp_path)
    window = clip.read([0, 2, 4])
    assert (clip.name, len(clip), clip.focal) == ('hall', 5, TRAINED_FOCAL)
    assert window.rgb.shape == (3, 24, 32, 3)
    np.testing.assert_allclose(window.depth_m[:, 5, 5], [0.1, 0.3, 0.5], atol=0.02)
    assert np.isnan(window.depth_m[:, 0, 0]).all()
    assert np.isfinite(window.depth_m[:, 1:]).all()
    np.testing.assert_allclose(window.rgb[:, 5, 5, 0], [8, 24, 40], atol=1)


def test_clip_json_gives_focal_length_and_stamps(tmp_path):
    stamps_ns = {str(i): 10**9 + i * 33_000_000 for i in range(1, 5)}
    write_clip(tmp_path / 'a', range(1, 5), intrinsics=CAMERA, stamps_ns=stamps_ns)
    write_clip(tmp_path / 'b', range(1, 5), stamps_ns=list(stamps_ns.values()))
    first, second = find_clips(tmp_path)
    assert first.focal == pytest.approx(40 / 32)
    assert first.read([1, 3]).stamps_ns == (stamps_ns['2'], stamps_ns['4'])
    assert second.stamps_ns == first.stamps_ns


def test_png_pictures_are_not_taken_for_depth(tmp_path):
    write_clip(tmp_path, range(1, 4))
    for i in range(1, 4):
        picture = cv2.imread(str(tmp_path / f'{i}.jpg'))
        cv2.imwrite(str(tmp_path / f'{i}_rgb.png'), picture)
        (tmp_path / f'{i}.jpg').unlink()
    (clip,) = find_clips(tmp_path)
    assert numbers_of(clip.read(range(3))) == [1, 2, 3]
    assert clip.name == tmp_path.name


def test_white_in_pngs_of_16_bit_is_what_the_clips_camera_can_send(tmp_path):
    """Whichever frame is read first: the brightest one is the last of the clip."""
    write_clip(tmp_path, range(1, 4))
    for i, brightest in ((1, 500), (2, 1000), (3, 4095)):  # of a camera of 12 bits
        (tmp_path / f'{i}.jpg').unlink()
        picture = np.full((24, 32, 3), brightest, np.uint16)
        assert cv2.imwrite(str(tmp_path / f'{i}_rgb.png'), picture)
    for told, grey in ((0, [31, 62, 255]), (12, [31, 62, 255]), (14, [7, 15, 63])):
        (clip,) = find_clips(tmp_path, bit_depth=told)
        assert clip.read([0]).rgb.max() == grey[0]
        assert [clip.read([i]).rgb.max() for i in range(3)] == grey


def test_what_is_missing_orphaned_or_unreadable_is_left_out_and_counted(tmp_path, caplog):
    clip = write_clip(tmp_path / 'a', range(1, 11))
    (clip / '2.png').unlink()
    (clip / '4.jpg').unlink()
    (clip / '5.jpg').write_bytes((clip / '5.jpg').read_bytes()[:-20])
    (clip / '6.png').write_bytes((clip / '6.png').read_bytes()[:-20])
    (clip / '7.png').write_bytes(b'')
    cv2.imwrite(str(clip / '8.png'), np.zeros((24, 32, 3), np.uint8))  # colours are no depth
    write_clip(tmp_path / 'b', range(1, 3), intrinsics={'fx_px': 'wide'})
    write_clip(tmp_path / '.b.partial', range(1, 3))
    found = find_clips(tmp_path)
    assert [(c.name, c.numbers) for c in found] == [('a', (1, 3, 9, 10))]
    line = caplog.records[-1].getMessage()
    for part in (
        '4 frames in 1 clips',
        '1 pictures without depth',
        '1 depth maps without a picture',
        '4 frames with an unreadable file',
        '1 clips with a broken clip.json',
    ):
        assert part in line


def test_a_folder_without_clips_says_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match=r'expected clips in .* <i>.jpg and depth <i>.png'):
        find_clips(tmp_path)
    with pytest.raises(ValueError, match='no such folder'):
        find_clips(tmp_path / 'nowhere')


# runs of frames


def test_a_run_ends_where_a_number_or_time_is_missing(tmp_path):
    stamps_ns = {str(i): i * 33_000_000 for i in range(1, 16)}
    for i in range(12, 16):
        stamps_ns[str(i)] += 1_500_000_000  # the recording paused
    write_clip(tmp_path, [*range(1, 6), *range(8, 16)], stamps_ns=stamps_ns)
    clips = find_clips(tmp_path)
    runs = [list(clips[0].numbers[run.start : run.stop]) for run in whole_runs(clips)]
    assert runs == [[1, 2, 3, 4, 5], [8, 9, 10, 11], [12, 13, 14, 15]]
    windows = RunWindows(whole_runs(clips), length=3, strides=(1, 3))
    rng = np.random.default_rng(0)
    for number in range(len(windows)):
        got = numbers_of(windows.window(number, rng))
        steps = np.diff(got)
        assert len(set(steps)) == 1
        assert 1 <= steps[0] <= 3
        assert any(set(got) <= set(run) for run in runs)


def test_held_out_blocks_keep_their_distance(tmp_path):
    write_clip(tmp_path, range(1, 241))
    clips = find_clips(tmp_path)
    numbers = {
        part: {n for run in block_runs(clips, part=part) for n in range(run.start, run.stop)}
        for part in ('train', 'val')
    }
    assert 0.15 < len(numbers['val']) / len(numbers['train']) < 0.4
    assert not {n + d for n in numbers['val'] for d in range(-3, 4)} & numbers['train']


def test_a_split_file_is_taken_as_the_published_code_takes_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_clip(tmp_path / 'nyu2_train' / 'office_0001_out', range(1, 21))
    entries = [1, 2, 3, 4, 9, 12, 13, 20, 40]
    split = [['office_0001_out', i] for i in entries] + [['attic_0001_out', 3]]
    (tmp_path / 'val_list.json').write_text(json.dumps(split))
    runs = listed_runs(find_clips(tmp_path), tmp_path / 'val_list.json')
    line = caplog.records[-1].getMessage()
    assert '6 pairs' in line
    assert '3 whose frames are not there' in line
    assert '1 with i of 1 or less' in line
    windows = RunWindows(runs, length=2, strides=(1, 1))
    rng = np.random.default_rng(0)
    pairs = [numbers_of(windows.window(number, rng)) for number in range(len(windows))]
    assert pairs == [[i, i + 1] for i in (2, 3, 4, 9, 12, 13)]
    longer = RunWindows(runs, length=4, strides=(1, 1))
    assert [numbers_of(longer.window(n, rng)) for n in range(len(longer))] == [[2, 3, 4, 5]]


@pytest.mark.parametrize('text', ['{"a": 1}', '[["a", "1"]]', '[["a", 2, 3]]', '[[', '[1, 2]'])
def test_another_file_is_no_split_file(tmp_path, text):
    write_clip(tmp_path / 'a', range(1, 4))
    (tmp_path / 'list.json').write_text(text)
    with pytest.raises(ValueError, match='expected a split file'):
        listed_runs(find_clips(tmp_path), tmp_path / 'list.json')


def test_damage_found_late_is_left_out_and_told(tmp_path, caplog):
    clip = write_clip(tmp_path, range(1, 31))
    bad = bytearray((clip / '7.png').read_bytes())
    bad[45:60] = bytes(15)  # beginning and end are whole, what lies between is not
    (clip / '7.png').write_bytes(bad)
    cv2.imwrite(str(clip / '9.png'), np.zeros((24, 32), np.uint16))  # nothing was measured
    windows = RunWindows(whole_runs(find_clips(tmp_path)), length=1, strides=(1, 1))
    for number in (6, 8):
        drawn = [windows.window(number, np.random.default_rng(0)) for _ in range(2)]
        assert numbers_of(drawn[0]) == numbers_of(drawn[1])
        assert numbers_of(drawn[0])[0] not in (7, 9)
    assert '7.png' in caplog.text
    assert 'a frame without any depth' in caplog.text


def test_nyu_as_it_comes_is_a_root_of_clips(nyu_root):
    clips = find_clips(nyu_root)
    assert all(clip.focal == TRAINED_FOCAL and clip.name.endswith('_out') for clip in clips)
    window = block_runs(clips, part='train')[0].read(5)
    assert window.rgb.shape == (4, 480, 640, 3)
    assert np.nanmin(window.depth_m) > 0.3
    assert np.nanmax(window.depth_m) <= 10


# the camera


def test_a_crop_lengthens_the_focal_length_and_so_shortens_the_trained_depth():
    truth_m = np.full((1, 105, 140), 2.0, np.float32)
    window = Window(
        np.zeros((1, 105, 140, 3), np.uint8), truth_m, TRAINED_FOCAL, np.eye(4)[None], (7,)
    )
    cropped = augmented(window, np.random.default_rng(0))
    part = cropped.rgb.shape[2] / 140
    assert part < 0.99
    assert math.isclose(cropped.focal, TRAINED_FOCAL / part, rel_tol=0.02)
    np.testing.assert_allclose(cropped.at_trained_focal().depth_m, 2.0 * part, rtol=0.02)
    assert cropped.world_from_camera is None
    assert cropped.stamps_ns == (7,)


def test_a_room_seen_with_a_longer_lens_is_trained_as_a_nearer_one():
    rooms = RoomWindows(height=30, width=40)
    windows = [rooms.window(turn) for turn in range(8)]
    other = next(window for window in windows if window.focal != TRAINED_FOCAL)
    scaled = other.at_trained_focal()
    assert scaled.focal == pytest.approx(TRAINED_FOCAL)
    np.testing.assert_allclose(
        scaled.depth_m * other.focal, other.depth_m * TRAINED_FOCAL, rtol=1e-5
    )
    assert scaled.world_from_camera is None
    assert other.world_from_camera.shape == (1, 4, 4)
    same = next(window for window in windows if window.focal == TRAINED_FOCAL)
    assert same.at_trained_focal() is same


def test_what_a_wide_picture_lacks_at_the_top_counts_in_training_as_on_the_robot():
    wide = Window(np.zeros((1, 90, 160, 3), np.uint8), np.ones((1, 90, 160), np.float32), 0.7)
    scale = NYU.scale(0.7, height=90, width=160)
    trained = wide.at_trained_focal()
    np.testing.assert_allclose(trained.depth_m * scale, 1, rtol=1e-6)
    again = trained.at_trained_focal()
    np.testing.assert_allclose(again.depth_m, trained.depth_m)


# rooms


@pytest.fixture
def drawing(monkeypatch):
    """Note which rooms are built and which windows drawn, in place of drawing them."""
    noted = {'rooms': [], 'windows': []}

    def build(number, **_):
        noted['rooms'].append(number)
        return number

    def draw(room, start, length, stride):
        noted['windows'].append((len(noted['windows']), room, start, stride))
        return noted['windows'][-1]

    monkeypatch.setattr(room_module, 'SampleRoom', build)
    monkeypatch.setattr(room_module, 'room_window', draw)
    yield noted
    room_module._room.cache_clear()
    room_module._drawn.cache_clear()


@pytest.mark.parametrize('workers', [1, 2, 4, 8])
def test_workers_draw_no_window_and_build_no_room_twice(drawing, workers):
    batch, share, begun = 4, 0.6, 600
    rooms = RoomWindows(height=28, width=42)
    drawn, built, shown = 0, [], 0
    for worker in range(workers):
        room_module._room.cache_clear()  # another process, another memory
        room_module._drawn.cache_clear()
        for number in range(worker, 2000, workers):
            if number - workers < begun <= number:  # the first windows come all at once
                drawing['rooms'].clear()
                drawing['windows'].clear()
            for index in range(number * batch, (number + 1) * batch):
                stripe, turn, _ = turn_of(index, batch=batch, room_share=share)
                if turn is not None:
                    rooms.window(turn, stripe=stripe)
                    shown += number >= begun
        drawn += len(drawing['windows'])
        built += drawing['rooms']
    assert drawn == pytest.approx(shown / SHOWINGS, rel=0.05)
    assert len(built) < 1.1 * len(set(built))


def test_a_stripe_shows_each_window_equally_often_and_then_no_more(drawing):
    shown = [RoomWindows(height=28, width=42).window(turn, stripe=3) for turn in range(2000)]
    counts = [shown.count(window) for window in set(shown[400:1600])]
    assert set(counts) == {SHOWINGS}
    assert not set(shown[:400]) & set(shown[-400:])
    rooms = {room for _, room, *_ in shown}
    for stripe, seed in ((4, 0), (3, 1)):
        others = RoomWindows(height=28, width=42, seed=seed)
        assert rooms.isdisjoint(others.window(t, stripe=stripe)[1] for t in range(2000))


# the mixture


@pytest.mark.parametrize(('share', 'batch'), [(0.0, 3), (0.6, 4), (0.37, 5), (1.0, 2)])
def test_turns_are_neither_left_out_nor_taken_twice(share, batch):
    count = STRIPES * batch * 50
    turns = [turn_of(i, batch=batch, room_share=share) for i in range(count)]
    clips = [clip for _, room, clip in turns if room is None]
    assert clips == list(range(len(clips)))
    for stripe in range(STRIPES):
        rooms = [room for s, room, _ in turns if s == stripe and room is not None]
        assert rooms == list(range(len(rooms)))
    assert len(clips) == pytest.approx(count * (1 - share), abs=STRIPES)


def test_a_sample_depends_on_seed_and_index_alone(tmp_path):
    write_clip(tmp_path, range(1, 101))
    settings = {'room_share': 0.5, 'clips': [ClipSource(root=str(tmp_path))]}
    forward, backward = room_data(**settings).stream, room_data(**settings).stream
    other = room_data(**settings | {'seed': 4})
    ahead = [forward[i] for i in range(6)]
    behind = [backward[i] for i in reversed(range(6))][::-1]
    for a, b in zip(ahead, behind, strict=True):
        assert torch.equal(a['rgb'], b['rgb'])
        assert torch.equal(a['depth_m'].nan_to_num(), b['depth_m'].nan_to_num())
    assert not torch.equal(ahead[0]['rgb'], other.stream[0]['rgb'])
    assert ahead[0]['rgb'].shape == (2, 28, 42, 3)
    assert list(FromStep(4, 7)) == [4, 5, 6]


def test_workers_change_nothing():
    stream = room_data().stream
    batches = [
        list(DataLoader(stream, batch_size=2, sampler=FromStep(0, 4), num_workers=workers))
        for workers in (0, 2)
    ]
    for alone, helped in zip(*batches, strict=True):
        assert torch.equal(alone['rgb'], helped['rgb'])


def test_an_epoch_shows_every_pair_of_a_split_file_once_in_a_new_order(tmp_path):
    write_clip(tmp_path, range(1, 31))
    for name, entries in (('train', range(2, 22)), ('val', range(24, 29))):
        split = [[tmp_path.name, i] for i in entries]
        (tmp_path / f'{name}_list.json').write_text(json.dumps(split))
    source = ClipSource(
        root=str(tmp_path),
        train_list=str(tmp_path / 'train_list.json'),
        val_list=str(tmp_path / 'val_list.json'),
    )
    data = room_data(
        windows=WindowShape((28, 42), frames=2, strides=(1, 1)),
        room_share=0.0,
        clips=[source],
        augment=False,
        epochs=3,
        batch_size=4,
    )
    scale = 1.0  # the clip's focal length is the trained one
    orders = []
    for epoch in range(3):
        shown = []
        for i in range(20 * epoch, 20 * (epoch + 1)):
            depth_m = data.stream[i]['depth_m'].nanmedian(-1).values.nanmedian(-1).values
            shown.append([round(float(d) * 10 * scale) for d in depth_m])
        assert sorted(shown) == [[i, i + 1] for i in range(2, 22)]
        orders.append(shown)
    assert all(a != b for a, b in pairwise(orders))
    trainer = lightning.Trainer(
        max_steps=-1, accelerator='cpu', logger=False, enable_checkpointing=False
    )
    assert data.steps(trainer) == 15
    trainer.val_check_interval = 0.25
    assert data.steps(trainer) == 12  # each quarter ends with a whole step
    assert data.sources == [tmp_path.name]
    assert len(data.validation) == 24
    numbers = {tuple(numbers_of(Window(None, s['depth_m'], 0))) for s in data.validation}
    assert numbers == {(i, i + 1) for i in range(24, 29)}


def test_split_files_with_entries_in_common_are_refused(tmp_path):
    write_clip(tmp_path, range(1, 31))
    (tmp_path / 'list.json').write_text(json.dumps([[tmp_path.name, 4]]))
    both = str(tmp_path / 'list.json')
    with pytest.raises(ValueError, match='without entries in common, got 1'):
        WindowData(
            room_share=0.0, clips=[ClipSource(root=str(tmp_path), train_list=both, val_list=both)]
        )


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'room_share': 1.5}, 'room_share'),
        ({'room_share': 0.5, 'clips': []}, 'without clips'),
        ({'val_windows': 0}, 'val_windows'),
        ({'epochs': 2}, 'rooms have no end'),
    ],
)
def test_settings_without_sense_are_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        room_data(**settings)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'size': (0, 42)}, 'size'),
        ({'frames': 0}, 'frames'),
        ({'strides': (3, 1)}, 'least <= most'),
    ],
)
def test_windows_without_sense_are_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        WindowShape(**settings)
    if 'strides' in settings:
        with pytest.raises(ValueError, match=words):
            ClipSource(**settings)
