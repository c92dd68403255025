# SPDX-License-Identifier: Apache-2.0
"""What looks like floor: it takes the doubt from a floor that seems too near, and nothing else."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from smoothdino_model import CameraFrame, CheckpointError, DepthPipeline, load_model, save_model
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.floor_looks import FloorLooks
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.scale.floor import floor_of_tilt, floor_scale
from smoothdino_model.scale.measurement import Measurement, vouched
from smoothdino_model.weights.floor_looks import FLOOR_LOOKS
from support.made_views import CAMERA, planes_m, pose_of
from support.streams import PERIOD_NS
from support.tiny_networks import tiny_dpt

LIKE_FLOOR, UNLIKE = np.full((16, 21), 4.0, np.float32), np.full((16, 21), -4.0, np.float32)


def everywhere(points):
    return np.ones(points.shape[:2], bool)


def low_surface(height_m=0.5) -> Measurement:
    """What a camera 1.4 m over the floor measures of a surface that fills its picture."""
    depth_m = planes_m([((0.0, 0.0, 1.0), height_m, everywhere)], pose_of(1.4, 25, 0))
    return floor_scale(depth_m, CAMERA, floor_of_tilt(1.4, 25))


def test_a_table_that_fills_the_picture_is_doubted_and_what_looks_like_floor_is_not():
    table = low_surface()
    assert table.log_scale > table.doubt
    assert vouched(table, UNLIKE) == table
    assert vouched(table, None) == table
    floor = vouched(table, LIKE_FLOOR)
    assert floor.doubt == math.inf
    assert replace(floor, doubt=table.doubt) == table


def test_looks_count_only_where_the_floor_was_measured():
    table = low_surface()
    assert table.where is not None
    other_half = replace(table, where=np.zeros_like(table.where))
    other_half.where[: len(table.where) // 2] = True
    looks = np.where(np.arange(16)[:, None] < 8, LIKE_FLOOR, UNLIKE)
    assert vouched(other_half, looks).doubt == math.inf
    assert vouched(replace(other_half, where=~other_half.where), looks).doubt == table.doubt


def test_what_is_no_floor_is_vouched_for_by_no_looks():
    for measured in (Measurement(0.3, 0.1, 10, 20), Measurement(why_none='nothing')):
        assert vouched(measured, LIKE_FLOOR) == measured


def looking(bias: float, *, memory: int = 2) -> SmoothDino:
    """A model to which everything looks like floor by ``bias``."""
    network = DepthBackbone(tiny_dpt(), input_height=56)
    weights = torch.zeros(network.channels)
    looks = FloorLooks(0, weights, bias, network.input_height)
    return SmoothDino(network, memory=memory, floor_looks=looks)


def doubts(model: SmoothDino) -> list[float]:
    """Of a table, as a pipeline of the model lets it pass, in three frames of two cameras."""
    table = low_surface()
    pipe, passed = DepthPipeline(model, device='cpu'), []
    rng = np.random.default_rng(0)
    for i in range(3):
        frame = CameraFrame(
            rng.integers(0, 256, (56, 70, 3), dtype=np.uint8),
            i * PERIOD_NS,
            anchors={'floor': lambda _: table},
        )
        passed += [
            one.measured['floor'].doubt for one in pipe.step({'a': frame, 'b': frame}).values()
        ]
    return passed


def test_a_pipeline_asks_its_model_and_one_that_knows_nothing_leaves_the_doubt():
    assert set(doubts(looking(4.0))) == {math.inf}
    for knows_nothing in (
        looking(-4.0),
        looking(4.0, memory=0),
        SmoothDino(DepthBackbone(tiny_dpt(), input_height=56), memory=2),
    ):
        assert set(doubts(knows_nothing)) == {low_surface().doubt}


def test_odds_are_those_of_the_patches_of_the_newest_frame():
    model = looking(0.5)
    weights = torch.linspace(-1, 1, model.backbone.channels)
    model.floor_looks = replace(model.floor_looks, weights=weights)
    rng, state = np.random.default_rng(1), None
    for _ in range(2):
        rgb = torch.from_numpy(rng.integers(0, 256, (1, 56, 70, 3), dtype=np.uint8))
        with torch.inference_mode():
            _, state = model(rgb, state)
            expected = model.backbone.encode(rgb)
    odds = model.floor_odds(state)
    assert odds.shape == (1, *expected.grid)
    level = (expected.levels[0][0, 1:] @ weights + 0.5).unflatten(0, expected.grid)
    torch.testing.assert_close(odds[0], level, atol=0.05, rtol=0.01)  # kept in half precision


def test_a_saved_model_keeps_its_looks_and_other_input_heights_do_without(tmp_path):
    save_model(looking(1.25), tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.floor_looks.bias == 1.25
    assert load_model(tmp_path, input_height=70).floor_looks is None
    (tmp_path / FLOOR_LOOKS).unlink()
    assert load_model(tmp_path).floor_looks is None


@pytest.mark.parametrize(
    'wrong', [{'weights': [1.0]}, {'weights': 'x'}, {'level': 9}, {'bias': None}, None]
)
def test_looks_of_another_encoder_are_refused_in_words(tmp_path, wrong):
    save_model(looking(1.0), tmp_path)
    path = tmp_path / FLOOR_LOOKS
    told = json.loads(path.read_text())
    path.write_text('{' if wrong is None else json.dumps(told | wrong))
    with pytest.raises(CheckpointError, match='remove it to do without'):
        load_model(tmp_path)
