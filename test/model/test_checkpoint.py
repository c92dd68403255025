# SPDX-License-Identifier: Apache-2.0
"""A directory rebuilds its model; what is broken or foreign is refused in words."""

import json
import logging
import os
import shutil
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig
from transformers.utils import logging as transformers_logging

from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.weights.checkpoint import load_model, save_adapter, save_model
from support.checkpoints import cut_short, depths, refusal
from support.tiny_networks import tiny_depth_anything, tiny_dpt, tiny_smoothdino

MODELS = {
    'dpt': lambda: SmoothDino(DepthBackbone(tiny_dpt())),
    'depth anything': lambda: SmoothDino(DepthBackbone(tiny_depth_anything())),
    'resized': lambda: SmoothDino(DepthBackbone(tiny_dpt(), input_height=42)),
    'resized to the nearer side': lambda: SmoothDino(
        DepthBackbone(tiny_dpt(), input_height=56, input_width=56, bicubic=True)
    ),
    'other normalisation': lambda: SmoothDino(
        DepthBackbone(tiny_dpt(), mean=(128, 120, 110), std=(60, 61, 62))
    ),
    'with adapter': tiny_smoothdino,
    'with a constant adapter': lambda: tiny_smoothdino(current=False, memory=0),
    'with other adapter settings': lambda: tiny_smoothdino(current=False, memory=2),
}


@pytest.mark.parametrize('make', MODELS.values(), ids=MODELS.keys())
def test_a_directory_rebuilds_its_model(tmp_path, make):
    model = make()
    save_model(model, tmp_path / 'deep' / 'model')
    loaded = load_model(tmp_path / 'deep' / 'model', memory=model.memory)
    assert type(loaded.backbone.network) is type(model.backbone.network)
    for name in ('input_height', 'input_width', 'bicubic'):
        assert getattr(loaded.backbone, name) == getattr(model.backbone, name)
    torch.testing.assert_close(loaded.backbone.mean, model.backbone.mean, atol=0, rtol=0)
    assert (loaded.adapter is None) == (model.adapter is None)
    if model.adapter is not None:
        assert loaded.adapter.config == model.adapter.config
    assert torch.equal(depths(loaded), depths(model))


def test_what_one_user_saves_others_may_read(tmp_path):
    save_model(tiny_smoothdino(), tmp_path)
    plain = tmp_path / 'plain'
    plain.touch()
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {plain.stat().st_mode}


def test_no_partial_files_are_left(tiny_model_dir):
    assert sorted(path.name for path in tiny_model_dir.iterdir()) == [
        'adapter.json',
        'adapter.safetensors',
        'config.json',
        'model.safetensors',
        'preprocessor_config.json',
    ]


def test_half_precision_on_disk_is_float32_in_memory(tmp_path):
    model = tiny_smoothdino()
    save_model(model, tmp_path, dtype=torch.float16)
    for name in ('model.safetensors', 'adapter.safetensors'):
        stored = load_file(tmp_path / name)
        assert {value.dtype for value in stored.values()} == {torch.float16}
    config = json.loads((tmp_path / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps(config | {'dtype': 'float16'}))
    loaded = load_model(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    torch.testing.assert_close(depths(loaded), depths(model), atol=0.02, rtol=0.02)


def test_input_height_asked_for_wins(tmp_path):
    save_model(SmoothDino(DepthBackbone(tiny_dpt(), input_height=42)), tmp_path)
    assert load_model(tmp_path, input_height=56).backbone.input_height == 56


def test_the_librarys_own_directories_load(tmp_path):
    """Without preprocessor_config.json, as its save_pretrained leaves them."""
    network = tiny_dpt()
    network.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, memory=0)
    assert loaded.adapter is None
    assert torch.equal(depths(loaded), depths(SmoothDino(DepthBackbone(network))))


def test_an_adapter_comes_from_where_it_is_told(tmp_path, directory):
    other = TemporalAdapter(AdapterConfig(24, hidden=5))
    save_adapter(other, tmp_path / 'other', backbone=tiny_smoothdino().backbone)
    hidden = [
        load_model(directory, adapter=adapter).adapter.config.hidden
        for adapter in (None, tmp_path / 'other', tmp_path / 'other' / 'adapter.safetensors')
    ]
    assert hidden == [8, 5, 5]
    assert load_model(directory, adapter='none').adapter is None


def test_loading_is_silent_and_leaves_logging_alone(directory, capfd, monkeypatch):
    transformers_logging.enable_progress_bar()
    before = transformers_logging.get_verbosity()
    logger = transformers_logging.get_logger('transformers')
    monkeypatch.setattr(logger, 'handlers', [logging.StreamHandler()])  # on this test's stderr
    save_model(load_model(directory), directory)
    save_file({'foreign': torch.zeros(3)}, directory / 'model.safetensors')
    refusal(load_model, directory)
    assert capfd.readouterr().err == ''
    assert transformers_logging.get_verbosity() == before
    assert transformers_logging.is_progress_bar_enabled()


# --- broken and foreign files


@pytest.mark.parametrize('spoil', [cut_short, lambda path: path.write_bytes(b''), os.remove,
                                   lambda path: path.write_bytes(os.urandom(5000))],
                         ids=['cut short', 'empty', 'missing', 'random'])  # fmt: skip
@pytest.mark.parametrize('name', ['model.safetensors', 'adapter.safetensors'])
def test_broken_weights_are_refused(directory, name, spoil):
    spoil(directory / name)
    message = refusal(load_model, directory)
    assert str(directory) in message
    assert 'again' in message
    if (directory / name).exists() or name.startswith('adapter'):
        assert name in message


@pytest.mark.parametrize('text', ['', '{"model_type": "dp', '[]', 'no JSON \x00', '{}',
                                  '{"model_type": "no such model"}'])  # fmt: skip
def test_a_garbage_config_is_refused(directory, text):
    (directory / 'config.json').write_text(text)
    message = refusal(load_model, directory)
    assert str(directory / 'config.json') in message
    assert 'again' in message


def test_another_kind_of_model_is_refused(directory):
    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(
        directory
    )
    message = refusal(load_model, directory)
    assert f"{directory / 'config.json'} describes a 'bert' model" in message
    assert "expected one of 'dpt', 'depth_anything'" in message


def test_relative_depth_is_refused(tmp_path):
    tiny_depth_anything(depth_estimation_type='relative').save_pretrained(tmp_path)
    message = refusal(load_model, tmp_path)
    assert str(tmp_path) in message
    assert 'take one of the Depth-Anything-V2-Metric checkpoints' in message


def test_weights_of_another_config_are_refused(directory):
    path = directory / 'model.safetensors'
    whole = load_file(path)
    head = next(name for name in whole if name.startswith('head') and name.endswith('weight'))
    for change, words in (
        ({head: whole[head][:1].clone()}, '1 mismatched'),
        ({'foreign': torch.zeros(3)}, '1 unexpected'),
    ):
        save_file(whole | change, path, metadata={'format': 'pt'})
        message = refusal(load_model, directory)
        assert str(path) in message
        assert words in message
        assert 'config.json' in message
    rest = {name: value for name, value in whole.items() if name != head}
    save_file(rest, path, metadata={'format': 'pt'})
    assert '1 missing' in refusal(load_model, directory)


@pytest.mark.parametrize(
    'text', ['', '[1]', '{}', '{"channels": 0}', '{"channels": 24, "magic": 1}',
             '{"channels": "many"}', '{"channels": 1000000000000}'])  # fmt: skip
def test_a_garbage_adapter_config_is_refused(directory, text):
    (directory / 'adapter.json').write_text(text)
    assert str(directory / 'adapter.json') in refusal(load_model, directory)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_an_adapter_knows_its_encoder_again_whatever_it_is_stored_in(tmp_path, dtype, caplog):
    model = tiny_smoothdino()
    save_adapter(model.adapter, tmp_path / 'adapter', backbone=model.backbone)
    save_model(SmoothDino(model.backbone), tmp_path / 'model', dtype=dtype)
    assert load_model(tmp_path / 'model', adapter=tmp_path / 'adapter').adapter is not None
    assert not caplog.records


@pytest.mark.parametrize(('change', 'refused'), [(0.05, False), (5.0, True)])
def test_an_adapter_of_a_fine_tuned_encoder_is_warned_of_and_of_another_refused(
    tmp_path, change, refused, caplog
):
    model = tiny_smoothdino()
    save_adapter(model.adapter, tmp_path / 'adapter', backbone=model.backbone)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in model.backbone.network.backbone.parameters():
            size = weights.square().mean().sqrt()
            weights.add_(change * size * torch.randn_like(weights))
    save_model(SmoothDino(model.backbone), tmp_path / 'model')
    arguments = {'model': tmp_path / 'model', 'adapter': tmp_path / 'adapter'}
    if refused:
        assert 'was trained on another encoder' in refusal(load_model, **arguments)
    else:
        load_model(**arguments)
        assert 'weights differ from these by' in caplog.text


def test_adapter_weights_of_another_config_are_refused(directory):
    settings = asdict(AdapterConfig(24, hidden=9))
    (directory / 'adapter.json').write_text(json.dumps(settings))
    assert str(directory / 'adapter.safetensors') in refusal(load_model, directory)


def test_an_adapter_of_another_width_is_refused(directory, tmp_path):
    wide = TemporalAdapter(AdapterConfig(48, hidden=4))
    save_adapter(wide, tmp_path / 'wide', backbone=tiny_smoothdino().backbone)
    for load in (
        lambda: load_model(directory, adapter=tmp_path / 'wide'),
        lambda: load_model(shutil.copytree(tmp_path / 'wide', directory, dirs_exist_ok=True)),
    ):
        message = refusal(load)
        assert '4 levels of 48 channels, the backbone gives 4 of 24' in message
        assert 'take an adapter trained for this backbone' in message
        assert str(tmp_path) in message


def test_an_absent_adapter_is_refused(directory, tmp_path):
    message = refusal(load_model, directory, adapter=tmp_path / 'absent')
    assert str(tmp_path / 'absent') in message
    assert "'none'" in message
    (tmp_path / 'empty').mkdir()
    message = refusal(load_model, directory, adapter=tmp_path / 'empty')
    assert str(tmp_path / 'empty' / 'adapter.json') in message


def test_an_encoder_that_reshapes_its_tokens_is_refused(directory):
    config = json.loads((directory / 'config.json').read_text())
    config['backbone_config']['reshape_hidden_states'] = True
    (directory / 'config.json').write_text(json.dumps(config))
    assert 'reshape_hidden_states' in refusal(load_model, directory)
