# SPDX-License-Identifier: Apache-2.0
"""The optimizer's settings: what they make of parameters and of steps, and what they refuse."""

import math

import pytest
from torch import nn

from training.optimizer import OptimizerSettings


def test_the_learning_rate_rises_and_falls_to_nothing():
    settings = OptimizerSettings(warmup_steps=10)
    rates = [settings.factor(step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_a_constant_rate_stays():
    settings = OptimizerSettings(schedule='constant', warmup_steps=0)
    assert {settings.factor(step, 5) for step in range(9)} == {1.0}


def test_every_parameter_that_learns_is_in_one_group_and_biases_do_not_decay():
    network = nn.ModuleDict(
        {'layer': nn.ModuleDict({'0': nn.Linear(8, 8)}), 'last': nn.Conv2d(3, 3, 1)}
    )
    network['last'].bias.requires_grad_(False)
    settings = OptimizerSettings(learning_rate=0.5, weight_decay=0.25, betas=(0.0, 0.5))
    optimizer = settings.optimizer([network])
    held = [id(p) for group in optimizer.param_groups for p in group['params']]
    assert sorted(held) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    for group in optimizer.param_groups:
        assert (group['lr'], group['betas']) == (0.5, (0.0, 0.5))
        for parameter in group['params']:
            assert group['weight_decay'] == (0.25 if parameter.ndim > 1 else 0)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'schedule': 'linear'}, 'schedule: expected cosine or constant'),
        ({'learning_rate': 0}, 'learning_rate'),
        ({'learning_rate': math.nan}, 'learning_rate'),
        ({'weight_decay': -0.1}, 'weight_decay'),
        ({'betas': (0.9, 1.0)}, 'betas'),
        ({'warmup_steps': -1}, 'warmup_steps'),
    ],
)
def test_settings_without_sense_are_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        OptimizerSettings(**settings)
