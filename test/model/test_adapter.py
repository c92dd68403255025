# SPDX-License-Identifier: Apache-2.0
"""The adapter starts as nothing, learns from the last frames, and touches no first frame."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import Dinov2Config, DPTConfig, DPTForDepthEstimation

from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.network.backbone import Content, DepthBackbone, Features
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.weights.checkpoint import load_adapter
from smoothdino_model.weights.errors import CheckpointError
from support.streams import batches
from support.tiny_networks import tiny_depth_anything, tiny_dpt

ARMS = {
    'control': {'memory': 0},
    'mean': {'current': False},
    'previous': {'memory': 1},
    'both': {},
}
WIDTHS = {'small': 384, 'base': 768, 'large': 1024, 'giant': 1536}
GRID = (9, 11)


def features(channels: int = 24, batch: int = 1, grid=GRID, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = grid
    size = (rows * 14, columns * 14)
    levels = tuple(
        torch.randn(batch, 1 + rows * columns, channels, generator=generator) for _ in range(4)
    )
    return Features(levels, grid, Content(0, 0, *size), size)


def adapter_with_weights(seed: int = 0, **settings) -> TemporalAdapter:
    """Give an adapter whose last layers are not zero."""
    torch.manual_seed(seed)
    adapter = TemporalAdapter(AdapterConfig(**{'channels': 24, 'hidden': 8} | settings))
    with torch.no_grad():
        for parameter in adapter.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return adapter


def adapted(adapter, current, mean, *, shift=(0.0, 0.0), confidence=1.0, valid=None):
    batch = len(current.levels[0])
    with torch.inference_mode():
        return adapter(
            current,
            mean,
            shift_patches=torch.tensor([shift] * batch),
            confidence=torch.full((batch,), confidence),
            valid=torch.ones(batch, dtype=torch.bool) if valid is None else torch.tensor(valid),
        ).levels


def equal(levels, others) -> bool:
    return all(torch.equal(a, b) for a, b in zip(levels, others, strict=True))


@pytest.mark.parametrize('make', [tiny_dpt, tiny_depth_anything])
@pytest.mark.parametrize('settings', ARMS.values(), ids=ARMS.keys())
@torch.inference_mode()
def test_before_training_depth_is_that_of_the_memory_bit_for_bit(make, settings):
    """Without one, that is plain depth."""
    backbone = DepthBackbone(make())
    fresh = TemporalAdapter(AdapterConfig(backbone.channels, hidden=8, **settings))
    model = SmoothDino(backbone, fresh)
    plain = SmoothDino(backbone, memory=fresh.config.memory)
    state = plain_state = None
    for rgb in batches(4):
        depth_m, state = model(rgb, state)
        plain_m, plain_state = plain(rgb, plain_state)
        assert torch.equal(depth_m, plain_m)
        if not fresh.config.memory:
            assert torch.equal(depth_m, backbone(rgb))


def trained(make, **settings) -> tuple[SmoothDino, dict[str, torch.Tensor]]:
    """Train an adapter on a pair of frames; give the model and its first parameters."""
    torch.manual_seed(0)
    backbone = DepthBackbone(make()).requires_grad_(False)
    model = SmoothDino(
        backbone, TemporalAdapter(AdapterConfig(backbone.channels, hidden=8, **settings))
    )
    before = {name: value.detach().clone() for name, value in model.adapter.named_parameters()}
    optimizer = torch.optim.Adam(model.adapter.parameters(), lr=1e-3)
    frames = batches(3)
    for _ in range(4):
        _, state = model(frames[0], None)
        loss = 0
        for rgb in frames[1:]:
            depth_m, state = model(rgb, state)
            loss = loss + functional.mse_loss(depth_m, torch.full_like(depth_m, 3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, before


def test_training_moves_every_parameter():
    model, before = trained(tiny_dpt)
    assert len(before) == 4 * 8
    for name, value in model.adapter.named_parameters():
        assert not torch.equal(value, before[name]), f'{name} has not moved'


def test_training_moves_all_that_depth_anything_uses():
    """Its decoder does not look at the class token."""
    model, before = trained(tiny_depth_anything)
    for name, value in model.adapter.named_parameters():
        assert torch.equal(value, before[name]) == name.startswith('class_token'), name


@pytest.mark.parametrize('make', [tiny_dpt, tiny_depth_anything])
def test_after_training_the_previous_frame_counts(make):
    model, _ = trained(make)
    frames, others = batches(2), batches(2, seed=1)
    with torch.inference_mode():
        _, state = model(frames[0])
        _, other_state = model(others[0])
        depth_m, _ = model(frames[1], state)
        other_depth_m, _ = model(frames[1], other_state)
        # By the features alone: with the same shift and confidence as well.
        swapped = replace(state, levels=other_state.levels)
        swapped_m, _ = model(frames[1], swapped)
    assert not torch.allclose(depth_m, other_depth_m)
    assert not torch.allclose(depth_m, swapped_m, atol=1e-6)


def test_without_a_memory_nothing_of_time_counts():
    """So that it can stand as a control: neither features nor motion of the frames before."""
    model = SmoothDino(DepthBackbone(tiny_dpt()), adapter_with_weights(memory=0)).eval()
    (first, other), (rgb, _) = batches(2, seed=1), batches(2)
    with torch.inference_mode():
        depths_m = [model(rgb, model(before, None)[1])[0] for before in (first, other)]
        assert torch.equal(*depths_m)
        assert not torch.equal(depths_m[0], model.backbone(rgb))


@pytest.mark.parametrize('settings', ARMS.values(), ids=ARMS.keys())
@torch.inference_mode()
def test_adapters_of_one_budget_have_equal_size_and_cost(settings):
    """Whatever they see: capacity must not pass for time."""
    budget = 800_000
    config = AdapterConfig(192, **settings).within(budget)
    adapter = TemporalAdapter(config)
    assert sum(p.numel() for p in adapter.parameters()) == pytest.approx(budget, rel=0.02)
    seen = features(192)
    with FlopCounterMode(display=False) as counter:
        adapted(adapter, seen, seen)
    expected = 2 * budget * GRID[0] * GRID[1] * 9 / 10  # a tenth of the weights sees one token
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.03)


def test_a_budget_too_small_for_anything_is_refused():
    with pytest.raises(ValueError, match='5000 are too few'):
        AdapterConfig(192).within(5000)


@pytest.mark.parametrize('channels', WIDTHS.values(), ids=WIDTHS.keys())
def test_all_widths_of_dinov2_work(channels):
    adapter = TemporalAdapter(AdapterConfig(channels))
    current = features(channels, grid=(2, 3))
    levels = adapted(adapter, current, features(channels, grid=(2, 3), seed=1))
    assert [level.shape for level in levels] == [level.shape for level in current.levels]


def vit_s_dpt_on_meta() -> DepthBackbone:
    """The shape of facebook/dpt-dinov2-small-nyu, without memory."""
    with torch.device('meta'):
        encoder = Dinov2Config(
            hidden_size=384,
            num_hidden_layers=12,
            num_attention_heads=6,
            patch_size=14,
            image_size=518,
            out_indices=[3, 6, 9, 12],
            apply_layernorm=False,
            reshape_hidden_states=False,
        )
        config = DPTConfig(
            backbone_config=encoder,
            neck_hidden_sizes=[48, 96, 192, 384],
            fusion_hidden_size=256,
            add_projection=True,
            readout_type='project',
            is_hybrid=False,
            use_batch_norm_in_fusion_residual=False,
        )
        return DepthBackbone(DPTForDepthEstimation(config).eval())


@torch.inference_mode()
def test_it_costs_less_than_six_percent_of_a_plain_frame():
    backbone = vit_s_dpt_on_meta()
    with torch.device('meta'):
        adapter = TemporalAdapter(AdapterConfig(384))
        rgb = torch.zeros(1, 490, 644, 3, dtype=torch.uint8)
        arguments = {
            'shift_patches': torch.zeros(1, 2),
            'confidence': torch.ones(1),
            'valid': torch.ones(1, dtype=torch.bool),
        }
    with FlopCounterMode(display=False) as plain:
        seen = backbone.encode(rgb)
        backbone.decode(seen)
    with FlopCounterMode(display=False) as extra:
        adapter(seen, seen, **arguments)
    assert 450e9 < plain.get_total_flops() < 600e9  # encoder and decoder were counted
    share = extra.get_total_flops() / plain.get_total_flops()
    assert 0.01 < share < 0.06


def test_a_camera_without_a_previous_frame_is_untouched():
    adapter = adapter_with_weights()
    current, previous = features(batch=3), features(batch=3, seed=1)
    levels = adapted(adapter, current, previous, valid=[True, False, True])
    for level, plain in zip(levels, current.levels, strict=True):
        assert torch.equal(level[1], plain[1])
        assert not torch.allclose(level[0], plain[0])
        assert not torch.allclose(level[2], plain[2])


def test_what_an_invalid_camera_holds_does_not_matter():
    """Not even NaN: a blank state may hold anything."""
    adapter = adapter_with_weights()
    current, previous = features(batch=2), features(batch=2, seed=1)
    for level in previous.levels:
        level[1] = torch.nan
    levels = adapted(adapter, current, previous, valid=[True, False])
    assert all(torch.isfinite(level).all() for level in levels)


def published(channels: int = 384) -> dict[str, torch.Tensor]:
    """Tensors as in a checkpoint of the SmoothDINOv2 authors."""
    generator = torch.Generator().manual_seed(0)
    shapes = {}
    for level in range(4):
        shapes[f'conv_out.{level}.weight'] = (channels, channels + 2, 3, 3)
        shapes[f'conv_out.{level}.bias'] = (channels,)
        shapes[f'fc_out.{level}.weight'] = (channels, channels + 2)
        shapes[f'fc_out.{level}.bias'] = (channels,)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize('channels', [384, 768])
def test_published_checkpoints_give_features_plus_bias(tmp_path, channels):
    tensors = published(channels)
    assert len(tensors) == 16
    torch.save(tensors, tmp_path / 'last.pth')
    adapter = load_adapter(tmp_path / 'last.pth')
    current = features(channels, batch=2, grid=(2, 3))
    levels = adapted(adapter, current, current, shift=(1.0, 2.0), valid=[True, False])
    for i, (level, plain) in enumerate(zip(levels, current.levels, strict=True)):
        assert torch.equal(level[0, 1:], plain[0, 1:] + tensors[f'conv_out.{i}.bias'])
        assert torch.equal(level[0, 0], plain[0, 0] + tensors[f'fc_out.{i}.bias'])
        assert torch.equal(level[1], plain[1])  # as there: a first frame is plain


def without(name):
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize(
    ('spoil', 'named'),
    [
        (without('fc_out.2.bias'), 'fc_out.2.bias'),
        (without('conv_out.0.bias'), 'conv_out.0-3'),
        (lambda tensors: tensors.update({'conv_hidden.0.bias': torch.zeros(24)}), 'conv_hidden.0'),
        (lambda tensors: tensors.update({'conv_out.3.weight': torch.zeros(24, 24, 3, 3)}),
         'conv_out.3.weight'),
        (lambda tensors: tensors.update({'fc_out.1.bias': torch.zeros(25)}), 'fc_out.1.bias'),
        (lambda tensors: tensors.update({'fc_out.1.bias': 3}), 'fc_out.1.bias'),
        (lambda tensors: tensors.clear(), 'got none of them'),
    ],
    ids=['missing', 'first missing', 'extra', 'other weight', 'other width', 'a number', 'empty'],
)  # fmt: skip
def test_other_files_than_the_published_ones_are_refused(tmp_path, spoil, named):
    tensors = published(24)
    spoil(tensors)
    path = tmp_path / 'spoilt.pth'
    torch.save(tensors, path)
    with pytest.raises(CheckpointError, match='expected the 16 tensors') as refused:
        load_adapter(path)
    assert str(path) in str(refused.value)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'channels': 0}, 'channels: expected at least 1, got 0'),
        ({'hidden': -1}, 'hidden: expected at least 1, got -1'),
        ({'n_levels': 0}, 'n_levels: expected at least 1, got 0'),
        ({'memory': -1}, 'memory: expected at least 0, got -1'),
    ],
    ids=str,
)
def test_a_configuration_checks_itself(settings, words):
    with pytest.raises(ValueError, match=words):
        AdapterConfig(**{'channels': 24} | settings)


def test_an_adapter_of_another_width_does_not_fit():
    backbone = DepthBackbone(tiny_dpt())
    with pytest.raises(ValueError, match='4 levels of 384 channels, the backbone gives 4 of 24'):
        SmoothDino(backbone, TemporalAdapter(AdapterConfig(384)))
