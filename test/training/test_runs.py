# SPDX-License-Identifier: Apache-2.0
"""Runs of frames that follow each other, and which of them are kept from training."""

import json
import logging

import cv2
import numpy as np
import pytest

from support.made_clips import numbers_of, write_clip
from training.data.clip_json import TRAINED_FOCAL
from training.data.clips import find_clips
from training.data.runs import RunWindows, block_runs, listed_runs, whole_runs


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
