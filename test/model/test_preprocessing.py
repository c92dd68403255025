# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's preprocessor is followed to the letter, or refused."""

import json

import pytest
import torch

from smoothdino_model.weights.checkpoint import load_model
from support.checkpoints import depths, refusal
from support.tiny_networks import tiny_smoothdino


def test_a_rescaling_preprocessor_means_the_same(directory):
    """Some checkpoints count pixels from 0 to 1, some from 0 to 255."""
    path = directory / 'preprocessor_config.json'
    settings = json.loads(path.read_text())
    settings |= {'do_rescale': True, 'rescale_factor': 1 / 255}
    for name in ('image_mean', 'image_std'):
        settings[name] = [value / 255 for value in settings[name]]
    path.write_text(json.dumps(settings))
    torch.testing.assert_close(depths(load_model(directory)), depths(tiny_smoothdino()))


@pytest.mark.parametrize('settings', [{'image_mean': [1, 2]}, {'image_std': [1, 0, 1]},
                                      {'do_resize': True}, {'image_mean': 'grey'},
                                      {'do_rescale': True, 'rescale_factor': 0}],
                         ids=str)  # fmt: skip
def test_a_wrong_preprocessor_is_refused(directory, settings):
    (directory / 'preprocessor_config.json').write_text(json.dumps(settings))
    assert str(directory / 'preprocessor_config.json') in refusal(load_model, directory)


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'do_normalize': False}, 'do_normalize'),
        ({'image_mean': None}, 'image_mean'),
        ({'do_resize': True, 'keep_aspect_ratio': False}, 'keep_aspect_ratio'),
        ({'do_resize': True, 'ensure_multiple_of': 32}, 'ensure_multiple_of'),
        ({'do_resize': True, 'keep_aspect_ratio': True, 'resample': 0}, 'resample'),
        ({'do_resize': True, 'size': {'height': 0, 'width': 56}}, 'above 0'),
        ({'do_resize': True, 'size': {'height': 56, 'width': 0}}, 'input_width'),
        ({'do_resize': True, 'size': {'shortest_edge': 56}}, 'size.height'),
        ({'do_pad': True, 'size_divisor': 32}, 'size_divisor'),
    ],
    ids=str,
)
def test_preprocessing_that_is_not_done_here_is_refused(directory, change, named):
    path = directory / 'preprocessor_config.json'
    settings = json.loads(path.read_text())
    settings |= {'keep_aspect_ratio': True, 'ensure_multiple_of': 14} | change
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    assert named in refusal(load_model, directory)


def test_pixels_count_from_0_to_1_where_nothing_else_is_said(directory):
    path = directory / 'preprocessor_config.json'
    settings = json.loads(path.read_text())
    del settings['do_rescale']
    for name in ('image_mean', 'image_std'):
        settings[name] = [value / 255 for value in settings[name]]
    path.write_text(json.dumps(settings))
    torch.testing.assert_close(depths(load_model(directory)), depths(tiny_smoothdino()))


def test_padding_to_whole_patches_is_what_is_done(directory):
    """As the published DPT models on DINOv2 ask for it."""
    path = directory / 'preprocessor_config.json'
    settings = json.loads(path.read_text()) | {'do_pad': True, 'size_divisor': 14}
    settings['ensure_multiple_of'], settings['keep_aspect_ratio'] = 1, False
    path.write_text(json.dumps(settings))
    assert torch.equal(depths(load_model(directory)), depths(tiny_smoothdino()))
