# SPDX-License-Identifier: Apache-2.0
"""Splits: what is apart, what is written, what is refused."""

import json

import pytest

from support.made_clips import write_clip
from training.data.clips import find_clips
from training.data.runs import listed_runs
from training.split import main, split


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('clips')
    for name, count in (('attic', 120), ('bath', 90), ('cellar', 60), ('den', 61)):
        write_clip(root / 'nyu2_train' / name, range(1, count + 1), height=8, width=8)
    return root


@pytest.fixture(scope='module')
def clips(root):
    return find_clips(root)


@pytest.mark.parametrize('by', ['frame', 'block', 'scene'])
def test_a_split_is_disjoint_seeded_and_of_the_size_asked_for(clips, by):
    train, val = split(clips, by=by, val_share=0.25, seed=0)
    assert not set(train) & set(val)
    assert split(clips, by=by, val_share=0.25, seed=0) == (train, val)
    assert any(split(clips, by=by, val_share=0.25, seed=seed)[1] != val for seed in (1, 2, 3))
    assert len(val) / (len(train) + len(val)) == pytest.approx(0.25, abs=0.12)
    assert min(i for _, i in train + val) >= 2


def test_by_frame_every_pair_is_on_one_side(clips):
    train, val = split(clips, by='frame', val_share=0.2, seed=0)
    assert len(train) + len(val) == sum(len(clip) - 2 for clip in clips)


def test_by_block_no_frame_of_one_side_is_near_the_other(clips):
    train, val = split(clips, by='block', val_share=0.2, seed=0, block=20, margin=3)
    shown = {(scene, i + d) for scene, i in train for d in (0, 1)}
    for scene, i in val:
        assert not {(scene, i + d) for d in range(-3, 5)} & shown
    assert {scene for scene, _ in val} & {scene for scene, _ in train}


def test_by_scene_no_clip_is_on_both_sides(clips):
    train, val = split(clips, by='scene', val_share=0.2, seed=0)
    assert not {scene for scene, _ in train} & {scene for scene, _ in val}
    assert {scene for scene, _ in train} | {scene for scene, _ in val} == {
        'attic',
        'bath',
        'cellar',
        'den',
    }


def test_what_is_written_is_read_as_published_files_are(root, clips, tmp_path, capsys):
    main(f'--root {root} --by block --val-share 0.3 --seed 5 --output {tmp_path}/out'.split())
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'train_list.json',
        'val_list.json',
    ]
    printed = capsys.readouterr().out
    for name in ('train', 'val'):
        path = tmp_path / 'out' / f'{name}_list.json'
        entries = json.loads(path.read_text())
        assert f'{len(entries)} ' in printed
        runs = listed_runs(clips, path)
        taken = {
            (run.clip.name, run.clip.numbers[position])
            for run in runs
            for position in range(run.start, run.stop - 1)
        }
        assert taken == {(f'nyu2_train/{scene}', i) for scene, i in entries}


def test_clips_of_one_folder_name_are_told_apart(tmp_path):
    for side in ('left', 'right'):
        write_clip(tmp_path / side / 'hall', range(1, 11), height=8, width=8)
    train, val = split(find_clips(tmp_path), by='scene', val_share=0.5, seed=0)
    assert {train[0][0], val[0][0]} == {'left/hall', 'right/hall'}


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ('--by scene', 'at least two scenes'),
        ('--by block --block 20 --margin 60', 'on both sides, got 0 to train on'),
        ('--by frame --val-share 1', 'between 0 and 1'),
    ],
)
def test_an_empty_side_is_refused_and_nothing_is_written(root, tmp_path, capsys, arguments, words):
    one = root / 'nyu2_train' / 'den'
    with pytest.raises(SystemExit) as stopped:
        main(f'--root {one} {arguments} --output {tmp_path}/out'.split())
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob('out/*'))
