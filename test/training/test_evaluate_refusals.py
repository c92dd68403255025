# SPDX-License-Identifier: Apache-2.0
"""What evaluation refuses, in words: shapes that do not fit, and numbers that are none."""

import pytest

from smoothdino_model.room.sample_room import SampleRoom
from support.made_depth import write_clip, write_depth_bag
from training import evaluate
from training.evaluation import stretches


@pytest.fixture(scope='module')
def ride():
    room = SampleRoom(7, height=42, width=56, focal_px=45.0)
    return [room.frame(9 * i) for i in range(3)]


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit):
        evaluate.main([str(one) for one in arguments])
    return capsys.readouterr().err


def test_depth_of_another_shape_than_its_truth_is_refused(ride, tmp_path, capsys):
    truths_m = [frame.depth_m for frame in ride]
    squeezed_m = [truth_m[:, ::2] for truth_m in truths_m]
    bag = write_depth_bag(
        tmp_path / 'bag', {'/d': (squeezed_m, 0, '32FC1'), '/t': (truths_m, 0, '32FC1')}
    )
    topics = ('--depth-topic', '/d', '--truth-topic', '/t')
    said = refusal(capsys, '--source', 'bag', '--root', bag, *topics)
    assert 'expected /d and /t of one shape, got 28x42 and 56x42' in said


def test_a_size_that_squeezes_the_frames_is_refused(ride, tmp_path):
    write_clip(tmp_path / 'clips/a', ride)
    (stretch,) = stretches.clips(tmp_path / 'clips', split=None, size=(21, 28)).stretches
    assert stretch.read(range(1)).rgb.shape == (1, 21, 28, 3)
    (stretch,) = stretches.clips(tmp_path / 'clips', split=None, size=(42, 28)).stretches
    with pytest.raises(ValueError, match='shape of its frames, 42x56, got 42x28'):
        stretch.read(range(1))


@pytest.mark.parametrize(
    ('option', 'value', 'said'),
    [
        *((name, '0', 'above 0, got 0') for name in ('--rooms', '--frames', '--stride')),
        ('--stride', '-3', 'above 0, got -3'),
        ('--rooms', '2.5', 'above 0, got 2.5'),
        ('--scan-height', '-1', 'metres over the floor, got -1.0'),
    ],
)
def test_numbers_that_are_none_are_refused(
    option, value, said, tiny_model_dir, monkeypatch, capsys
):
    monkeypatch.setattr(stretches, '_MEAN_MAP_FRAMES', 1)
    given = ('--source', 'room', '--model', tiny_model_dir, '--rooms', 1, '--size', '42x56')
    assert said in refusal(capsys, *given, f'{option}={value}')
