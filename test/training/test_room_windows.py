# SPDX-License-Identifier: Apache-2.0
"""Windows of rooms: drawn once by whichever worker, shown equally often."""

import numpy as np
import pytest

from smoothdino_model.room.sample_room import SampleRoom
from training import render_rooms
from training.data import room as room_module
from training.data.clip_json import TRAINED_FOCAL
from training.data.clips import find_clips
from training.data.datasets import turn_of
from training.data.room import FIRST_UNSEEN_ROOM, SHOWINGS, RoomWindows


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


def test_rendered_clips_show_the_asked_rooms_at_the_asked_pace(tmp_path):
    options = ['--first', '7', '--rooms', '2', '--frames', '3', '--stride', '2']
    render_rooms.main([str(tmp_path), *options, '--height', '24', '--width', '32'])
    first, _ = clips = find_clips(tmp_path)
    assert [clip.name for clip in clips] == ['room_0007', 'room_0008']
    room = SampleRoom(7, height=24, width=32)
    for position, frame in enumerate((0, 2, 4)):
        expected_m = room.frame(frame).depth_m
        np.testing.assert_allclose(first.read([position]).depth_m[0], expected_m, atol=6e-4)


def test_rooms_that_are_never_trained_on_are_not_rendered_for_training(tmp_path, capsys):
    with pytest.raises(SystemExit):
        render_rooms.main([str(tmp_path), '--first', str(FIRST_UNSEEN_ROOM - 1), '--rooms', '2'])
    assert 'never trained on' in capsys.readouterr().err
