# SPDX-License-Identifier: Apache-2.0
"""Weights and configurations that bring code are refused, and it is never run."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file

from smoothdino_model.weights.checkpoint import load_adapter, load_model
from support.checkpoints import cut_short, depths, refusal
from support.tiny_networks import tiny_smoothdino


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
