# SPDX-License-Identifier: Apache-2.0
"""What training and validation see: clips and rooms in their mixture, in an order of their own."""

import json
from collections import Counter
from itertools import pairwise

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from support.made_clips import numbers_of, write_clip
from training.data.clips import Window
from training.data.data_module import ClipSource, FromStep, WindowData, WindowShape
from training.data.datasets import turn_of
from training.data.room import STRIPES


def room_data(**settings) -> WindowData:
    small = {
        'windows': WindowShape((28, 42), frames=2),
        'room_share': 1.0,
        'batch_size': 2,
        'seed': 3,
    }
    return WindowData(**small | settings)


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


def test_what_another_shape_has_too_much_is_cut_off_and_not_squeezed_in(tmp_path):
    """In validation, and in training that does not augment: another shape is another lens."""
    camera = {'fx_px': 40.0, 'fy_px': 40.0, 'cx_px': 15.5}
    tall = camera | {'cy_px': 23.5, 'width': 32, 'height': 48}
    write_clip(tmp_path / 'tall', range(1, 101), height=48, intrinsics=tall)
    wide = camera | {'cy_px': 10.5, 'width': 32, 'height': 22}  # its middle, of the windows' shape
    write_clip(tmp_path / 'wide', range(1, 101), height=22, intrinsics=wide)
    samples = []
    for name in ('tall', 'wide'):
        source = ClipSource(root=str(tmp_path / name))
        data = room_data(
            room_share=0, clips=[source], augment=False, windows=WindowShape((22, 32))
        )
        samples.append([data.stream[0]['depth_m'], data.validation[0]['depth_m']])
    for of_tall, of_wide in zip(*samples, strict=True):
        known = of_tall.isfinite() & of_wide.isfinite()
        assert known.float().mean() > 0.9
        torch.testing.assert_close(of_tall[known], of_wide[known])


def test_places_are_mixed_by_share_and_not_by_how_long_they_were_seen(tmp_path):
    for name, first, count in (('hall', 1, 64), ('still', 101, 1), ('pair', 111, 4)):
        write_clip(tmp_path / name, range(first, first + count))
    sources = [
        ClipSource(root=str(tmp_path), leave_out=('pair',), validate=False, share=3.0),
        ClipSource(root=str(tmp_path), leave_out=('[!p]*',), validate=False, share=1.0),
    ]
    data = WindowData(WindowShape((24, 32)), 0, clips=sources, augment=False, variants=2)
    n = data.stream.n_clip_windows
    assert n == 69
    depths_m = (data.stream[i]['depth_m'].nanmedian() for i in range(4 * n))
    counts = Counter(round(10 * float(depth_m)) for depth_m in depths_m)
    assert sum(counts[i] for i in range(111, 115)) == pytest.approx(n, abs=4)  # a quarter of 4 n
    # Of what is left the hall gets eight times as much as the still, the root of 64.
    assert counts[101] == pytest.approx(3 * n / 9, abs=4)
    of_hall = [counts[i] for i in range(1, 65)]
    assert max(of_hall) - min(of_hall) <= 2
    with pytest.raises(ValueError, match='share: expected one for each source of clips'):
        WindowData(
            room_share=0, clips=[sources[0], ClipSource(root=str(tmp_path), block=10, margin=0)]
        )


def test_what_comes_more_often_comes_in_more_variants(tmp_path):
    write_clip(tmp_path / 'hall', range(1, 65))
    write_clip(tmp_path / 'still', [201])
    source = ClipSource(root=str(tmp_path), validate=False, share=1.0)
    data = WindowData(WindowShape((24, 32)), 0, clips=[source], variants=2)
    n = data.stream.n_clip_windows

    def stills(passes):
        samples = (data.stream[i] for p in passes for i in range(p * n, (p + 1) * n))
        return [s['rgb'].numpy().tobytes() for s in samples if s['depth_m'].nanmedian() > 10]

    first, all_of_them = stills([0]), stills(range(6))
    assert len(set(first)) == len(first) > 5
    assert len(set(all_of_them)) <= 2 * (len(first) + 1)


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
        windows=WindowShape((30, 40), frames=2, strides=(1, 1)),
        room_share=0.0,
        clips=[source],
        augment=False,
        epochs=3,
        batch_size=4,
    )
    orders = []
    for epoch in range(3):
        shown = []
        for i in range(20 * epoch, 20 * (epoch + 1)):
            depth_m = data.stream[i]['depth_m'].nanmedian(-1).values.nanmedian(-1).values
            shown.append([round(float(d) * 10) for d in depth_m])
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
