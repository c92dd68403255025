# SPDX-License-Identifier: Apache-2.0
"""Which names stand for which directories: bundled, local, or in the cache of the hub."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import sys
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils import HFValidationError, validate_repo_id

from smoothdino_model.one_line import first_line
from smoothdino_model.weights.errors import CheckpointError

DEFAULT_MODEL = 'facebook/dpt-dinov2-small-nyu'
BUNDLED_MODELS = {'smoothdino-small': Path(__file__).parents[1] / 'assets' / 'smoothdino_small'}
# In the order in which transformers looks for them, and the names of the shards of an index.
WEIGHTS: dict[str, tuple[str, ...]] = {
    'model.safetensors': (),
    'model.safetensors.index.json': ('model-*.safetensors',),
    'pytorch_model.bin': (),
    'pytorch_model.bin.index.json': ('pytorch_model-*.bin',),
}

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
            f"run '{command()} download {name}' where there is a network and copy what it gives"
            f'{_bundled_instead(name)}'
        )
    _log.info('downloading %s from the Hugging Face hub', name)
    try:
        # This request is not retried: without a network it fails at once, not after half a minute.
        info = huggingface_hub.model_info(name, timeout=10)
        files = {file.rfilename for file in info.siblings or ()}
        weights = next((kind for kind in WEIGHTS if kind in files), 'pytorch_model.bin')
        patterns = ['*config.json', 'adapter.*', 'floor.json', weights, *WEIGHTS.get(weights, ())]
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the hub's client lets through errors of several libraries
        raise CheckpointError(
            f'model {name!r} is not in the local cache and could not be downloaded '
            f'({first_line(error)}): check the name and the network, or download it elsewhere '
            f"with '{command()} download {name}' and pass the copied directory as the model"
            f'{_bundled_instead(name)}'
        ) from error


def command() -> str:
    """How to call the command line here: colcon puts it where `ros2 run` finds it, not on PATH."""
    if shutil.which('smoothdino'):
        return 'smoothdino'
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    if any(Path(one, 'lib', 'smoothdino_ros', 'smoothdino').exists() for one in prefixes if one):
        return 'ros2 run smoothdino_ros smoothdino'
    return shlex.join([sys.executable, '-m', 'smoothdino_model'])


def weight_files(directory: Path) -> list[Path]:
    """Give the files of weights, whole with their shards, in the order of :data:`WEIGHTS`."""
    return [directory / name for name in WEIGHTS if _is_whole(directory / name)]


def _is_whole(path: Path) -> bool:
    if not path.is_file() or path.suffix != '.json':
        return path.is_file()
    try:
        shards = set(json.loads(path.read_text(encoding='utf-8'))['weight_map'].values())
        return all((path.parent / shard).is_file() for shard in shards)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        _log.debug('%s is no index of weights', path, exc_info=True)
        return False


def _bundled_instead(name: str) -> str:
    if name != DEFAULT_MODEL:
        return ''
    return f'; {", ".join(map(repr, BUNDLED_MODELS))} is bundled and needs no network'
