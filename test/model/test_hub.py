# SPDX-License-Identifier: Apache-2.0
"""Models by name: from the cache without a network, or in words how to get them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

from smoothdino_model.cli.main import main
from smoothdino_model.weights.checkpoint import load_model
from smoothdino_model.weights.hub import command, resolve_model
from support.checkpoints import cached, depths, refusal


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))


def test_a_model_that_is_not_cached_says_how_to_get_it_offline(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    message = refusal(load_model, 'facebook/dpt-dinov2-small-nyu')
    assert "model 'facebook/dpt-dinov2-small-nyu' is not in the local cache" in message
    assert 'HF_HUB_OFFLINE is set: unset it' in message
    assert f"'{command()} download facebook/dpt-dinov2-small-nyu'" in message


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
    assert f"'{command()} download somebody/something'" in message
    assert 'Retrying' not in done.stderr


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text('#!/bin/sh\n')
    path.chmod(0o755)
    return path


def test_what_is_advised_works_as_typed_wherever_the_command_line_is(
    tmp_path, monkeypatch, capsys
):
    """By pip on PATH, by colcon for ros2 run, in a clone by the Python that runs."""
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    help_of = subprocess.run(
        [*shlex.split(command()), 'download', '--help'],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'MODEL' in help_of.stdout
    executable(tmp_path / 'install' / 'lib' / 'smoothdino_ros' / 'smoothdino')
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/opt/ros/jazzy{os.pathsep}{tmp_path / "install"}')
    assert command() == 'ros2 run smoothdino_ros smoothdino'
    with pytest.raises(SystemExit):
        main(['infer'])
    assert '(see ros2 run smoothdino_ros smoothdino infer --help)' in capsys.readouterr().err
    executable(tmp_path / 'bin' / 'smoothdino')
    assert command() == 'smoothdino'


def test_a_cached_model_needs_no_network(tmp_path, tiny_model_dir, monkeypatch):
    snapshot = cached(tmp_path / 'hub', 'somebody/something', tiny_model_dir)
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
    snapshot = cached(tmp_path / 'hub', 'somebody/something', tiny_model_dir)
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


def test_without_a_network_the_bundled_model_is_named_beside_the_default(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    assert "'smoothdino-small' is bundled" in refusal(load_model)
    assert 'bundled' not in refusal(load_model, 'somebody/something')
