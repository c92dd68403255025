# SPDX-License-Identifier: Apache-2.0
"""A directory rebuilds its model; what is broken, foreign or malicious is refused in words."""

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig
from transformers.utils import logging as transformers_logging

from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.weights.checkpoint import load_adapter, load_model, save_adapter, save_model
from smoothdino_model.weights.errors import CheckpointError
from smoothdino_model.weights.hub import resolve_model
from support.tiny_networks import tiny_depth_anything, tiny_dpt, tiny_smoothdino


@pytest.fixture
def directory(tmp_path, tiny_model_dir):
    """A whole model directory that a test may spoil."""
    return shutil.copytree(tiny_model_dir, tmp_path / 'model')


def depths(model: SmoothDino) -> torch.Tensor:
    """Depth (2, 1, 60, 80) of two frames of a stream."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (2, 1, 60, 80, 3), dtype=torch.uint8, generator=generator)
    with torch.inference_mode():
        first, state = model(frames[0])
        return torch.stack((first, model(frames[1], state)[0]))


def refusal(load, *arguments, **settings) -> str:
    with pytest.raises(CheckpointError) as refused:
        load(*arguments, **settings)
    message = str(refused.value)
    assert '\n' not in message
    return message


def cut_short(path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


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


def test_a_rescaling_preprocessor_means_the_same(directory):
    """Some checkpoints count pixels from 0 to 1, some from 0 to 255."""
    path = directory / 'preprocessor_config.json'
    settings = json.loads(path.read_text())
    settings |= {'do_rescale': True, 'rescale_factor': 1 / 255}
    for name in ('image_mean', 'image_std'):
        settings[name] = [value / 255 for value in settings[name]]
    path.write_text(json.dumps(settings))
    torch.testing.assert_close(depths(load_model(directory)), depths(tiny_smoothdino()))


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


@pytest.mark.parametrize('settings', [{'image_mean': [1, 2]}, {'image_std': [1, 0, 1]},
                                      {'do_resize': True}, {'image_mean': 'grey'},
                                      {'do_rescale': True, 'rescale_factor': 0}],
                         ids=str)  # fmt: skip
def test_a_wrong_preprocessor_is_refused(directory, settings):
    (directory / 'preprocessor_config.json').write_text(json.dumps(settings))
    assert str(directory / 'preprocessor_config.json') in refusal(load_model, directory)


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


# --- malicious files


class Payload:
    """Unpickled without care, it writes a file."""

    def __init__(self, marker) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch "{self.marker}"',)


def test_the_payload_is_one(tmp_path):
    """Else the tests below would show nothing."""
    torch.save(Payload(tmp_path / 'marker'), tmp_path / 'file')
    torch.load(tmp_path / 'file', weights_only=False)
    assert (tmp_path / 'marker').exists()


def write_malicious(path, marker, *, raw: bool) -> None:
    content = {'conv_out.0.bias': Payload(marker)}
    if raw:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)


@pytest.mark.parametrize('raw', [False, True], ids=['torch', 'pickle'])
def test_a_published_file_with_code_is_not_run(tmp_path, raw):
    path = tmp_path / 'best.pth'
    write_malicious(path, tmp_path / 'marker', raw=raw)
    message = refusal(load_adapter, path)
    assert not (tmp_path / 'marker').exists()
    assert str(path) in message
    assert 'never run' in message
    cut_short(path)
    assert str(path) in refusal(load_adapter, path)


@pytest.mark.parametrize('raw', [False, True], ids=['torch', 'pickle'])
def test_old_weights_with_code_are_not_run(directory, tmp_path, raw):
    (directory / 'model.safetensors').unlink()
    path = directory / 'pytorch_model.bin'
    write_malicious(path, tmp_path / 'marker', raw=raw)
    message = refusal(load_model, directory)
    assert not (tmp_path / 'marker').exists()
    assert str(path) in message
    assert 'again' in message


def test_old_weights_of_tensors_alone_load(directory):
    tensors = load_file(directory / 'model.safetensors')
    (directory / 'model.safetensors').unlink()
    torch.save(tensors, directory / 'pytorch_model.bin')
    assert torch.equal(depths(load_model(directory)), depths(tiny_smoothdino()))


def test_a_config_that_brings_code_is_not_run(directory, tmp_path, monkeypatch):
    """Nor asked about: nobody sits at a robot's terminal."""
    (directory / 'configuration_evil.py').write_text(
        'from pathlib import Path\n'
        'from transformers import PretrainedConfig\n'
        f'Path({str(tmp_path / "marker")!r}).touch()\n'
        'class EvilConfig(PretrainedConfig):\n'
        "    model_type = 'evil'\n"
    )
    config = {'model_type': 'evil', 'auto_map': {'AutoConfig': 'configuration_evil.EvilConfig'}}
    (directory / 'config.json').write_text(json.dumps(config))
    monkeypatch.setattr('builtins.input', lambda *_: 'y')
    message = refusal(load_model, directory)
    assert not (tmp_path / 'marker').exists()
    assert str(directory / 'config.json') in message


# --- models that are not here


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))


def test_a_model_that_is_not_cached_says_how_to_get_it_offline(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    message = refusal(load_model, 'facebook/dpt-dinov2-small-nyu')
    assert "model 'facebook/dpt-dinov2-small-nyu' is not in the local cache" in message
    assert 'HF_HUB_OFFLINE is set: unset it' in message
    assert "'smoothdino download facebook/dpt-dinov2-small-nyu'" in message


def test_a_model_that_cannot_be_downloaded_says_so_soon(tmp_path):
    """In its own process, with a hub that nobody answers for."""
    code = (
        'from smoothdino_model.weights.errors import CheckpointError\n'
        'from smoothdino_model.weights.hub import download_model\n'
        'import time\n'
        'begin = time.monotonic()\n'
        'try:\n'
        "    download_model('somebody/something')\n"
        'except CheckpointError as error:\n'
        '    print(time.monotonic() - begin, error)\n'
    )
    environment = os.environ | {
        'HF_ENDPOINT': 'http://127.0.0.1:9',  # the discard port: refused at once
        'HF_HUB_OFFLINE': '0',
        'HF_HOME': str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    waited_s, message = done.stdout.split(maxsplit=1)
    assert float(waited_s) < 5
    assert "model 'somebody/something' is not in the local cache and could not" in message
    assert "'smoothdino download somebody/something'" in message
    assert 'Retrying' not in done.stderr


def test_a_cached_model_needs_no_network(tmp_path, tiny_model_dir, monkeypatch):
    snapshot = tmp_path / 'hub' / 'models--somebody--something' / 'snapshots' / ('0' * 40)
    shutil.copytree(tiny_model_dir, snapshot)
    references = snapshot.parents[1] / 'refs'
    references.mkdir()
    (references / 'main').write_text('0' * 40)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    assert resolve_model('somebody/something') == snapshot
    assert load_model('somebody/something').adapter is not None


@pytest.mark.parametrize('name', ['no-such-model', 'a/b/c', './absent', '/absent/model', ''])
def test_a_name_that_can_be_nothing_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(load_model, name)
    assert repr(name) in message or str(tmp_path) in message or 'holds no config.json' in message


def test_a_directory_without_a_model_is_refused(tmp_path):
    message = refusal(load_model, tmp_path)
    assert message.startswith(f'{tmp_path} holds no config.json')


def test_a_sharded_checkpoint_in_the_cache_needs_no_network(tmp_path, tiny_model_dir, monkeypatch):
    snapshot = tmp_path / 'hub' / 'models--somebody--something' / 'snapshots' / ('0' * 40)
    shutil.copytree(tiny_model_dir, snapshot)
    refs = snapshot.parents[1] / 'refs'
    refs.mkdir()
    (refs / 'main').write_text('0' * 40)
    whole = load_model(snapshot)
    (snapshot / 'model.safetensors').unlink()
    whole.backbone.network.save_pretrained(snapshot, max_shard_size='50KB')
    shards = sorted(snapshot.glob('model-*.safetensors'))
    assert len(shards) > 1
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    assert torch.equal(depths(load_model('somebody/something')), depths(whole))
    shards[-1].unlink()
    assert 'is not in the local cache' in refusal(resolve_model, 'somebody/something')


def test_an_encoder_that_reshapes_its_tokens_is_refused(directory):
    config = json.loads((directory / 'config.json').read_text())
    config['backbone_config']['reshape_hidden_states'] = True
    (directory / 'config.json').write_text(json.dumps(config))
    assert 'reshape_hidden_states' in refusal(load_model, directory)


def test_without_a_network_the_bundled_model_is_named_beside_the_default(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    assert "'smoothdino-small' is bundled" in refusal(load_model)
    assert 'bundled' not in refusal(load_model, 'somebody/something')


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
