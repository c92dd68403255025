# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: a directory that rebuilds its model, and nothing in it is ever executed.

A model directory holds transformers' ``config.json`` and ``model.safetensors``, an optional
``preprocessor_config.json`` and ``floor.json`` and, where an adapter was trained for it,
``adapter.json`` and ``adapter.safetensors``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import (
    AutoConfig,
    DepthAnythingForDepthEstimation,
    DPTForDepthEstimation,
    PretrainedConfig,
)
from transformers.utils import logging as transformers_logging

from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.network.backbone import (
    ANY_WIDTH,
    IMAGENET_MEAN,
    IMAGENET_STD,
    DepthBackbone,
)
from smoothdino_model.network.memory import FRAMES
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.network.trained_camera import trained_camera
from smoothdino_model.one_line import first_line
from smoothdino_model.weights.errors import CheckpointError
from smoothdino_model.weights.fingerprint import check_encoder, encoder_fingerprint
from smoothdino_model.weights.floor_looks import load_floor_looks, save_floor_looks
from smoothdino_model.weights.hub import DEFAULT_MODEL, resolve_model, weight_files
from smoothdino_model.weights.published import load_published
from smoothdino_model.whole_files import write_whole

ADAPTER_CONFIG = 'adapter.json'
ADAPTER_WEIGHTS = 'adapter.safetensors'
_BILINEAR, _BICUBIC = 2, 3  # as Pillow numbers its filters

NETWORKS: dict[str, Any] = {  # from_pretrained gives a pair, which its annotation denies
    'dpt': DPTForDepthEstimation,
    'depth_anything': DepthAnythingForDepthEstimation,
}


def load_model(
    model: str | Path = DEFAULT_MODEL,
    *,
    adapter: str | Path | None = None,
    memory: int = FRAMES,
    input_height: int = 0,
) -> SmoothDino:
    """Load a model and its adapter in float32 on the CPU.

    ``model`` is a directory, ``smoothdino-small`` (bundled) or a Hugging Face id; the network is
    touched only for an id that is not in the local cache. ``adapter`` is a directory, an
    ``adapter.safetensors`` with its ``adapter.json`` beside it, a published SmoothDINOv2 ``.pth``,
    or ``'none'``; by default the one that lies with the model. Without an adapter depth is of the
    mean over the last ``memory`` frames' features, with 0 it is plain per-frame depth.
    ``input_height`` 0 is what the checkpoint asks for, see :class:`DepthBackbone`.

    Raises :class:`CheckpointError`.
    """
    directory = resolve_model(model)
    backbone = _load_backbone(directory, str(model), input_height)
    looks = load_floor_looks(directory, backbone)
    if adapter is None:
        adapter = directory if (directory / ADAPTER_CONFIG).exists() else 'none'
    if str(adapter) == 'none':
        return SmoothDino(backbone, memory=memory, floor_looks=looks)
    loaded = load_adapter(adapter)
    try:
        fitted = SmoothDino(backbone, loaded, floor_looks=looks)
        check_encoder(loaded, backbone, f'the adapter {adapter}')
    except ValueError as error:
        raise CheckpointError(f'{adapter} does not fit {model}: {error}') from error
    return fitted


def save_model(
    model: SmoothDino, directory: str | Path, *, dtype: torch.dtype | None = None
) -> None:
    """Write a model and its adapter so that :func:`load_model` rebuilds them from the directory.

    ``dtype`` is that of the weights on disk, by default their own.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    network = model.backbone.network
    weights = {name: _stored(value, dtype) for name, value in network.state_dict().items()}
    network.config.trained_camera = asdict(model.backbone.trained_camera)
    with _transformers_quiet():
        network.save_pretrained(directory, state_dict=weights)
    for file in directory.glob('*.safetensors'):  # which the library shows to no other user
        shutil.copymode(directory / 'config.json', file)
    preprocessor = {
        'image_processor_type': 'DPTImageProcessor',
        'do_rescale': False,
        'do_normalize': True,
        'image_mean': model.backbone.mean.flatten().tolist(),
        'image_std': model.backbone.std.flatten().tolist(),
    } | _resizing(model.backbone)
    _write_json(directory / 'preprocessor_config.json', preprocessor)
    if model.floor_looks is not None:
        save_floor_looks(model.floor_looks, directory)
    if model.adapter is not None:
        save_adapter(model.adapter, directory, backbone=model.backbone, dtype=dtype)


def _resizing(backbone: DepthBackbone) -> dict[str, Any]:
    if not backbone.input_height:
        return {'do_resize': False, 'do_pad': True, 'size_divisor': backbone.patch}
    return {
        'do_resize': True,
        'ensure_multiple_of': backbone.patch,
        'keep_aspect_ratio': True,
        'size': {'height': backbone.input_height, 'width': backbone.input_width},
        'resample': _BICUBIC if backbone.bicubic else _BILINEAR,
    }


def save_adapter(
    adapter: TemporalAdapter,
    directory: str | Path,
    *,
    backbone: DepthBackbone,
    dtype: torch.dtype | None = None,
) -> None:
    """Write ``adapter.json``, which names the encoder of ``backbone``, and its weights."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: _stored(value, dtype) for name, value in adapter.state_dict().items()}
    write_whole(directory / ADAPTER_WEIGHTS, save(weights))
    settings = asdict(adapter.config) | {'encoder': encoder_fingerprint(backbone)}
    _write_json(directory / ADAPTER_CONFIG, settings)


def load_adapter(path: str | Path) -> TemporalAdapter:
    """Load an adapter from a directory, an ``adapter.safetensors`` or a published ``.pth``."""
    path = Path(path)
    if path.is_dir():
        return _load_adapter_pair(path)
    if not path.is_file():
        raise CheckpointError(
            f'adapter {path} does not exist: expected a directory with {ADAPTER_CONFIG}, '
            "a .safetensors or .pth file, or 'none'"
        )
    if path.suffix == '.safetensors':
        return _load_adapter_pair(path.parent, path)
    return load_published(path)


def _load_backbone(directory: Path, name: str, input_height: int) -> DepthBackbone:
    config = _load_config(directory)
    network_class = NETWORKS.get(config.model_type)
    if network_class is None:
        raise CheckpointError(
            f'{directory / "config.json"} describes a {config.model_type!r} model: expected one '
            f'of {", ".join(map(repr, NETWORKS))} with a DINOv2 encoder; take another model'
        )
    if getattr(config.backbone_config, 'reshape_hidden_states', False):
        raise CheckpointError(
            f'{directory / "config.json"} sets reshape_hidden_states of its backbone_config: '
            'expected false, as tokens are what is decoded here; take another model'
        )
    weights_path = next(iter(weight_files(directory)), directory)
    try:
        with _transformers_quiet():
            network, report = network_class.from_pretrained(
                directory,
                config=config,
                local_files_only=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are reported, and refused below
                output_loading_info=True,
            )
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise CheckpointError(
            f'the weights in {weights_path} cannot be read ({first_line(error)}): the file is '
            f'missing, cut short, foreign or carries code, which is never run; fetch or save '
            f'{name} again'
        ) from error
    problems = [
        f'{len(report[kind])} {kind.removesuffix("_keys")}'
        for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys')
        if report.get(kind)
    ]
    if problems:
        raise CheckpointError(
            f'the weights in {weights_path} do not belong to its config.json '
            f'({", ".join(problems)} tensors); fetch or save {name} again'
        )
    asked = _preprocessing(directory, int(config.backbone_config.patch_size))
    if input_height:
        asked |= {'input_height': input_height, 'input_width': ANY_WIDTH}
    try:
        return DepthBackbone(
            network,
            **asked,
            trained_camera=trained_camera(name, getattr(config, 'trained_camera', None)),
        )
    except ValueError as error:
        raise CheckpointError(f'{name} cannot be used: {error}') from error


def _load_config(directory: Path) -> PretrainedConfig:
    try:
        # Undecided about remote code, transformers would ask on the terminal.
        return AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a foreign file fails in as many ways as there are formats
        raise CheckpointError(
            f'{directory / "config.json"} is not the configuration of a model this software knows '
            f'({first_line(error)}); fetch or save the model again'
        ) from error


def _preprocessing(directory: Path, patch: int) -> dict[str, Any]:
    """Give what a checkpoint asks for, as :class:`DepthBackbone` takes it.

    What is not set, or null, has the default of transformers' DPTImageProcessor; what the backbone
    does not do is refused, as it would move depth in silence.
    """
    path = directory / 'preprocessor_config.json'
    if not path.is_file():
        return {'mean': IMAGENET_MEAN, 'std': IMAGENET_STD}
    settings = {name: value for name, value in _read_json(path).items() if value is not None}
    # By name: the default, and what is done here.
    expected: dict[str, tuple[Any, ...]] = {'do_normalize': (True, True)}
    resized = settings.get('do_resize', True)
    if resized:
        expected |= {
            'keep_aspect_ratio': (False, True),
            'ensure_multiple_of': (1, patch),
            'resample': (_BICUBIC, _BICUBIC, _BILINEAR),
        }
    if settings.get('do_pad', False):
        expected['size_divisor'] = (patch, patch)  # without one, the least that a network takes
    for name, (default, *done) in expected.items():
        if (got := settings.get(name, default)) not in done:
            raise CheckpointError(
                f'{path}: expected {name} {" or ".join(map(json.dumps, done))}, got '
                f'{json.dumps(got)}, which is not supported; take another model'
            )
    try:
        scale = (
            1 / settings.get('rescale_factor', 1 / 255) if settings.get('do_rescale', True) else 1
        )
        mean, std = (
            tuple(value * scale for value in settings[name])
            for name in ('image_mean', 'image_std')
        )
        size = settings['size'] if resized else {'height': 0, 'width': ANY_WIDTH}
        height, width = int(size['height']), int(size['width'])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f'{path} is not a preprocessor configuration: expected image_mean, image_std and, '
            f'with do_resize, size.height and size.width ({error!r})'
        ) from error
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise CheckpointError(f'{path}: expected three means and three positive deviations')
    if resized and height < 1:
        raise CheckpointError(f'{path}: expected a size above 0, got a height of {height}')
    return {
        'input_height': height,
        'input_width': width,
        'bicubic': resized and settings.get('resample', _BICUBIC) == _BICUBIC,
        'mean': mean,
        'std': std,
    }


def _load_adapter_pair(directory: Path, weights_path: Path | None = None) -> TemporalAdapter:
    weights_path = weights_path or directory / ADAPTER_WEIGHTS
    settings = _read_json(directory / ADAPTER_CONFIG)
    try:
        encoder = settings.pop('encoder', None)
        if encoder is not None:
            encoder = [float(share) for share in encoder]
        adapter = TemporalAdapter(AdapterConfig(**settings), encoder)
    except (TypeError, ValueError, RuntimeError) as error:  # the last: no memory for its sizes
        raise CheckpointError(
            f'{directory / ADAPTER_CONFIG} is not the configuration of an adapter '
            f'({first_line(error)}): train or copy the adapter again'
        ) from error
    try:
        weights = load_file(weights_path)
        adapter.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f'{weights_path} cannot be read as the weights of {ADAPTER_CONFIG} beside it '
            f'({first_line(error)}): the file is missing, cut short or foreign; train or copy it '
            'again'
        ) from error
    return adapter


@contextmanager
def _transformers_quiet() -> Iterator[None]:
    """Silence progress bars and loading reports: what they say stands in our messages."""
    bars, verbosity = (
        transformers_logging.is_progress_bar_enabled(),
        transformers_logging.get_verbosity(),
    )
    if bars:
        transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _stored(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype and value.is_floating_point():
        value = value.to(dtype)
    return value.detach().cpu().contiguous()


def _read_json(path: Path) -> dict:
    try:
        settings = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f'{path} cannot be read as JSON ({error}): restore it, or save the directory again'
        ) from error
    if not isinstance(settings, dict):
        raise CheckpointError(f'{path}: expected a JSON object, got {type(settings).__name__}')
    return settings


def _write_json(path: Path, settings: dict) -> None:
    write_whole(path, (json.dumps(settings, indent=2) + '\n').encode())
