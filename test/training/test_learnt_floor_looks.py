# SPDX-License-Identifier: Apache-2.0
"""Floor by its looks: what it is learnt from, how, and what the bundled model makes of it."""

import numpy as np
import pytest
import torch

from smoothdino_model import load_model
from training.data.room import room_window, unseen_room
from training.evaluation.anchored import Surroundings, height_over_floor_m
from training.floor_looks import Patches, area_under_curve, fitted, labels_of


def test_patches_are_floor_or_not_and_those_between_are_left_out():
    over_m = np.zeros((56, 70))
    over_m[:28, 14:28] = 0.8  # two patches of a table
    over_m[28:, :14] = 0.07  # a doormat, neither
    over_m[28:42, 56:] = np.nan
    labels = labels_of(over_m, (4, 5))
    assert (labels[:2, 1] == 0).all()
    assert np.isnan(labels[2:, 0]).all()
    assert np.isnan(labels[2, 4])
    assert (labels[:2, [0, 2, 3, 4]] == 1).all()


def test_a_line_between_two_kinds_is_found_and_every_source_counts_alike():
    generator = torch.Generator().manual_seed(0)

    def source(number: int, axis: int) -> Patches:
        features = torch.randn(number, 8, generator=generator)
        return Patches(features, (features[:, axis] > 0).float())

    many, few = source(4000, 0), source(200, 1)
    weights, bias = fitted([many, few])
    assert abs(weights[0] - weights[1]) < 0.3 * weights[0]
    assert weights[2:].abs().max() < 0.2 * weights[0]
    alone, bias = fitted([many])
    assert area_under_curve(many.features @ alone + bias, many.is_floor) > 0.99


def test_the_area_under_the_curve_is_a_chance():
    is_floor = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert area_under_curve(torch.tensor([4.0, 3.0, 2.0, 1.0]), is_floor) == 1
    assert area_under_curve(torch.tensor([1.0, 2.0, 3.0, 4.0]), is_floor) == 0
    assert area_under_curve(torch.tensor([4.0, 1.0, 3.0, 2.0]), is_floor) == 0.5


@pytest.mark.slow
def test_to_the_bundled_model_floors_of_unseen_rooms_look_like_floor_and_the_rest_does_not():
    model, odds, labels = load_model('smoothdino-small').eval(), [], []
    for number in range(6):
        window = room_window(unseen_room(number, height=240, width=320), 0, 1, 1)
        around = Surroundings(window.camera, window.floors[0], window.depth_m[0], 0)
        with torch.inference_mode():
            _, state = model(torch.from_numpy(window.rgb), None)
        (of_patch,) = model.floor_odds(state)
        odds.append(of_patch.flatten())
        labels.append(labels_of(height_over_floor_m(around), of_patch.shape).ravel())
    odds, labels = torch.cat(odds), torch.from_numpy(np.concatenate(labels))
    known = labels.isfinite()
    assert area_under_curve(odds[known], labels[known]) > 0.95
    assert odds[labels == 1].median() > 1.5
    assert odds[labels == 0].median() < -1.5
