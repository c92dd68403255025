# SPDX-License-Identifier: Apache-2.0
"""The intervals of an evaluation hold what they say, and none is claimed from too little."""

import numpy as np
import pytest

from training.evaluation.intervals import blocks, rows
from training.evaluation.measure import Measured


def made_up(errors: dict[str, np.ndarray], scenes: list[str] | None = None) -> Measured:
    """A measurement of one long scene, or several, with these squared errors."""
    count = len(next(iter(errors.values())))
    measured = Measured(list(errors))
    measured.scenes = scenes or ['scene'] * count
    measured.positions = list(range(count))
    for name, values in errors.items():
        measured.values[name] = {'mse': list(values)}
    return measured


def test_blocks_end_with_their_scene_and_after_their_length():
    scenes = ['a'] * 5 + ['b'] * 4
    assert blocks(scenes, [0, 1, 2, 3, 4, 0, 1, 7, 8], 3).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match='block: expected at least 2'):
        rows(made_up({'per_frame': np.ones(9)}), block=1)


@pytest.mark.slow
def test_an_interval_over_blocks_holds_what_one_over_frames_would_miss():
    """Errors that last for 10 frames: the mean of 24 such spells is known to 1 / sqrt(24)."""
    rng = np.random.default_rng(3)
    held = {10: 0, 2: 0}
    trials = 40
    for _ in range(trials):
        spells = 10 + rng.standard_normal(24)
        measured = made_up({'per_frame': np.repeat(spells, 10)})
        for block in held:
            low, high = rows(measured, block=block)[0]['ci']['mse']
            held[block] += low <= 10 <= high
            if block == 10:
                assert 0.5 < (high - low) / (2 * 1.96 / 24**0.5) < 1.6
    assert held[10] >= 0.85 * trials
    assert held[2] < 0.8 * trials


@pytest.mark.slow
def test_intervals_miss_the_truth_on_each_side_as_often_as_they_say():
    """Of 1000 methods with independent blocks around a known mean, 2.5 % miss it on each side."""
    spells = 10 + np.random.default_rng(7).standard_normal((1000, 80))
    errors = {f'method {i}': np.repeat(one, 2) for i, one in enumerate(spells)}
    came = [row for row in rows(made_up(errors), block=2) if row['scene'] == 'all']
    low, high = np.array([row['ci']['mse'] for row in came]).T
    assert 0.015 < np.mean(low > 10) < 0.04
    assert 0.015 < np.mean(high < 10) < 0.04


def test_a_difference_is_paired():
    """Both methods err by the same large spells; one is always better by 0.1."""
    spells = np.repeat(np.random.default_rng(0).uniform(1, 9, 12), 10)
    came = rows(
        made_up({'per_frame': spells, 'control': spells + 1, 'new': spells - 0.1}), block=10
    )
    plain, control, new = (row for row in came if row['scene'] == 'all')
    assert new['ci']['mse'][1] > plain['ci']['mse'][0]  # each for itself says nothing
    np.testing.assert_allclose(new['versus']['per_frame']['mse'], -0.1, atol=1e-9)
    np.testing.assert_allclose(new['versus']['control']['mse'], -1.1, atol=1e-9)
    assert plain['versus'].keys() == {'control'}
    assert control['versus'].keys() == {'per_frame'}
    difference, low, high = new['versus']['per_frame']['rmse']
    assert difference == pytest.approx(new['rmse'] - plain['rmse'])
    assert low < difference < high < 0


def test_no_interval_is_claimed_from_a_few_blocks():
    came = rows(made_up({'per_frame': np.arange(40.0), 'x': np.ones(40)}), block=10)
    assert all(row['ci'] == {} for row in came)
    assert came[1]['versus']['per_frame']['mse'] == [1 - 19.5, None, None]


def test_frames_without_any_truth_count_for_nothing():
    errors = np.arange(40.0)
    errors[::2] = np.nan
    row = rows(made_up({'per_frame': errors}), block=4)[0]
    assert row['mse'] == pytest.approx(20)
    assert row['ci']['mse'][0] < 20 < row['ci']['mse'][1]
    nothing = rows(made_up({'per_frame': np.full(40, np.nan)}), block=4)[0]
    assert nothing['mse'] is None
    assert nothing['ci']['mse'] == [None, None]
