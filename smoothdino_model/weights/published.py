# SPDX-License-Identifier: Apache-2.0
"""The checkpoints that the authors of SmoothDINOv2 published, as adapters."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.one_line import first_line
from smoothdino_model.weights.errors import CheckpointError


def load_published(path: Path) -> TemporalAdapter:
    """Read a checkpoint of the SmoothDINOv2 authors: 16 tensors.

    Their hidden layers are not in it and are zero, so that what its convolutions are fed is zero
    as well, and of each layer only the bias reaches the features.
    """
    try:
        tensors = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a foreign file makes torch.load raise almost anything
        raise CheckpointError(
            f'{path} is not a file of tensors alone ({first_line(error)}): it is cut short, '
            'foreign or carries code, which is never run; take the published file again'
        ) from error
    bias = tensors.get('conv_out.0.bias') if isinstance(tensors, dict) else None
    if not isinstance(bias, Tensor) or bias.ndim != 1:
        raise CheckpointError(f'{path} {_published_expectation()}, got none of them')
    channels = len(bias)
    expected: dict[str, tuple[int, ...]] = {}
    for level in range(4):
        expected[f'conv_out.{level}.weight'] = (channels, channels + 2, 3, 3)
        expected[f'conv_out.{level}.bias'] = (channels,)
        expected[f'fc_out.{level}.weight'] = (channels, channels + 2)
        expected[f'fc_out.{level}.bias'] = (channels,)
    came = {name: tuple(getattr(value, 'shape', ())) for name, value in tensors.items()}
    for name in sorted(expected.keys() | came.keys()):
        if expected.get(name) != came.get(name):
            raise CheckpointError(
                f'{path} {_published_expectation()}; {name} should be '
                f'{expected.get(name, "absent")} and is {came.get(name, "absent")}'
            )
    config = AdapterConfig(channels, current=False, memory=0)
    adapter = TemporalAdapter(config)
    adapter.load_state_dict(
        {
            'offsets.patches': torch.stack([tensors[f'conv_out.{i}.bias'] for i in range(4)]),
            'offsets.class_token': torch.stack([tensors[f'fc_out.{i}.bias'] for i in range(4)]),
        }
    )
    return adapter


def _published_expectation() -> str:
    return (
        'is not a published SmoothDINOv2 adapter: expected the 16 tensors conv_out.0-3 and '
        'fc_out.0-3, weight and bias'
    )
