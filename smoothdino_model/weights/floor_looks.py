# SPDX-License-Identifier: Apache-2.0
"""``floor.json`` beside a model: what looks like floor to its encoder."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.floor_looks import FloorLooks
from smoothdino_model.weights.errors import CheckpointError
from smoothdino_model.whole_files import write_whole

FLOOR_LOOKS = 'floor.json'


def load_floor_looks(directory: Path, backbone: DepthBackbone) -> FloorLooks | None:
    """Give what lies with the model; None without, or where it was made for another input height.

    Raises :class:`CheckpointError` where it does not fit the encoder.
    """
    path = directory / FLOOR_LOOKS
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_text(encoding='utf-8'))
        weights = torch.tensor(told['weights'], dtype=torch.float32)
        looks = FloorLooks(
            int(told['level']), weights, float(told['bias']), int(told['input_height'])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f'{path}: expected level, weights, bias and input_height ({error!r}): restore it, or '
            'remove it to do without'
        ) from error
    if weights.shape != (backbone.channels,) or not 0 <= looks.level < backbone.n_levels:
        raise CheckpointError(
            f'{path}: expected {backbone.channels} weights of one of {backbone.n_levels} levels, '
            f'got {tuple(weights.shape)} of level {looks.level}: it is of another encoder, remove '
            'it to do without'
        )
    return looks if looks.input_height == backbone.input_height else None


def save_floor_looks(looks: FloorLooks, directory: Path) -> None:
    """Write what :func:`load_floor_looks` reads."""
    told = {
        'level': looks.level,
        'input_height': looks.input_height,
        'bias': round(looks.bias, 4),
        'weights': [round(weight, 4) for weight in looks.weights.tolist()],
    }
    write_whole(directory / FLOOR_LOOKS, (json.dumps(told) + '\n').encode())
