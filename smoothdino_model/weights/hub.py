# SPDX-License-Identifier: Apache-2.0
"""Which names stand for which directories: bundled, local, or in the cache of the hub."""

from __future__ import annotations

import logging
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils import HFValidationError, validate_repo_id

from smoothdino_model.one_line import first_line
from smoothdino_model.weights.errors import CheckpointError

DEFAULT_MODEL = 'facebook/dpt-dinov2-small-nyu'
BUNDLED_MODELS = {'sample-room': Path(__file__).parents[1] / 'assets' / 'sample_room'}

_log = logging.getLogger(__name__)


def resolve_model(model: str | Path) -> Path:
    """Give the local directory of a model, fetching a Hugging Face id that is not cached."""
    name = str(model)
    directory = BUNDLED_MODELS.get(name, Path(name))
    if directory.is_dir():
        if not (directory / 'config.json').is_file():
            raise CheckpointError(
                f'{directory} holds no config.json: expected a directory that transformers or '
                'save_model wrote'
            )
        return directory
    try:
        validate_repo_id(name)
        if name.count('/') != 1:
            raise HFValidationError(name)
    except HFValidationError as error:
        raise CheckpointError(
            f'model {name!r} is neither a directory here, nor a Hugging Face id such as '
            f'{DEFAULT_MODEL!r}, nor one of {", ".join(map(repr, BUNDLED_MODELS))}'
        ) from error
    cached = huggingface_hub.try_to_load_from_cache(name, 'config.json')
    if isinstance(cached, str) and weight_files(Path(cached).parent):
        return Path(cached).parent
    return download_model(name)


def download_model(name: str) -> Path:
    """Fetch a Hugging Face model into the local cache and give its directory there."""
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f'model {name!r} is not in the local cache and HF_HUB_OFFLINE is set: unset it, or '
            f"run 'smoothdino download {name}' where there is a network and copy what it gives"
        )
    _log.warning('downloading %s from the Hugging Face hub', name)
    try:
        # This request is not retried: without a network it fails at once, not after half a minute.
        info = huggingface_hub.model_info(name, timeout=10)
        files = {file.rfilename for file in info.siblings or ()}
        weights = 'model.safetensors' if 'model.safetensors' in files else 'pytorch_model.bin'
        return Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=['*config.json', weights, 'adapter.*']
            )
        )
    except Exception as error:  # the hub's client lets through errors of several libraries
        raise CheckpointError(
            f'model {name!r} is not in the local cache and could not be downloaded '
            f'({first_line(error)}): check the name and the network, or download it elsewhere '
            f"with 'smoothdino download {name}' and pass the copied directory as the model"
        ) from error


def weight_files(directory: Path) -> list[Path]:
    """Give the files of weights in the order in which transformers looks for them."""
    candidates = (directory / name for name in ('model.safetensors', 'pytorch_model.bin'))
    return [path for path in candidates if path.is_file()]
