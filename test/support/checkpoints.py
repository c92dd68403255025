# SPDX-License-Identifier: Apache-2.0
"""What a loaded model gives, what a refused one says, and how a file is spoilt."""

import shutil

import pytest
import torch

from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.weights.errors import CheckpointError


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


def cached(hub, name, directory):
    """Give the folder, in a cache of the hub, of a model that another directory holds."""
    place = hub / f'models--{name.replace("/", "--")}'
    (place / 'refs').mkdir(parents=True)
    (place / 'refs' / 'main').write_text('0' * 40)
    return shutil.copytree(directory, place / 'snapshots' / ('0' * 40))
