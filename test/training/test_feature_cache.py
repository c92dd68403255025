# SPDX-License-Identifier: Apache-2.0
"""Kept features are the encoder's own, whatever was kept before, and no other encoder's."""

import pytest
import torch

from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.room.sample_room import SampleRoom
from support.tiny_networks import tiny_dpt
from training.feature_cache import FeatureCache


@pytest.fixture
def backbone() -> DepthBackbone:
    return DepthBackbone(tiny_dpt(), input_height=56)


def frames(n: int) -> torch.Tensor:
    room = SampleRoom(0, height=60, width=80)
    return torch.stack([torch.from_numpy(room.frame(5 * i).rgb) for i in range(n)])


def kept(cache: FeatureCache, rgb: torch.Tensor) -> tuple[torch.Tensor, ...]:
    features = cache.encode(rgb, cache.backbone.preprocess(rgb))
    plain = cache.backbone.encode(rgb)
    assert features.grid == plain.grid
    assert features.content == plain.content
    assert features.frame_size == plain.frame_size
    return features.levels


def equal(levels, others) -> bool:
    return all(torch.equal(a, b) for a, b in zip(levels, others, strict=True))


def test_they_are_the_encoders_features_to_half_precision(tmp_path, backbone):
    rgb = frames(3)
    levels = kept(FeatureCache(tmp_path, backbone), rgb)
    for level, exact in zip(levels, backbone.encode(rgb).levels, strict=True):
        assert level.dtype == torch.float32
        torch.testing.assert_close(level, exact, rtol=1e-3, atol=1e-3)


def test_mixed_precision_takes_the_same_features(tmp_path, backbone):
    cache, rgb = FeatureCache(tmp_path, backbone), frames(2)
    with torch.autocast('cpu', torch.bfloat16):
        levels = cache.encode(rgb, backbone.preprocess(rgb)).levels
    assert equal(levels, kept(cache, rgb))


def test_each_frame_is_encoded_once_for_all_runs(tmp_path, backbone):
    rgb, encoded = frames(4), []
    backbone.network.backbone.register_forward_pre_hook(
        lambda _, args: encoded.append(len(args[0]))
    )
    first = FeatureCache(tmp_path, backbone)
    once = first.encode(rgb[:3], backbone.preprocess(rgb[:3])).levels
    assert sum(encoded) == 3
    again = FeatureCache(tmp_path, backbone).encode(rgb, backbone.preprocess(rgb)).levels
    assert sum(encoded) == 4
    assert equal(once, [level[:3] for level in again])


def test_company_and_order_change_nothing(tmp_path, backbone):
    """Not a bit: a resumed run finds other frames kept than one left alone."""
    rgb = frames(4)
    together = kept(FeatureCache(tmp_path / 'a', backbone), rgb)
    other = FeatureCache(tmp_path / 'b', backbone)
    kept(other, rgb[2:3])
    assert equal(kept(other, rgb), together)


def test_another_encoder_size_or_picture_is_not_taken_for_it(tmp_path, backbone):
    rgb = frames(2)
    own = FeatureCache(tmp_path, backbone)
    kept(own, rgb)
    others = [
        DepthBackbone(tiny_dpt(seed=1), input_height=56),
        DepthBackbone(tiny_dpt(), input_height=70),
        DepthBackbone(tiny_dpt(), input_height=56, input_width=56),
        DepthBackbone(tiny_dpt(), input_height=56, bicubic=True),
        DepthBackbone(tiny_dpt(), input_height=56, mean=(0.0, 0.0, 0.0)),
    ]
    directories = {own.directory, *(FeatureCache(tmp_path, other).directory for other in others)}
    assert len(directories) == 1 + len(others)
    assert not equal(kept(own, rgb[:1]), kept(own, rgb[1:]))
    decoder = DepthBackbone(tiny_dpt(), input_height=56)
    torch.nn.init.zeros_(next(decoder.network.head.parameters()))
    assert FeatureCache(tmp_path, decoder).directory == own.directory


def test_a_file_cut_short_is_made_anew(tmp_path, backbone):
    rgb = frames(1)
    cache = FeatureCache(tmp_path, backbone)
    whole = kept(cache, rgb)
    (file,) = cache.directory.rglob('*.safetensors')
    file.write_bytes(file.read_bytes()[:100])
    assert equal(kept(cache, rgb), whole)
    assert equal(kept(FeatureCache(tmp_path, backbone), rgb), whole)
    assert [path.suffix for path in cache.directory.rglob('*') if path.is_file()] == [
        '.safetensors'
    ]
