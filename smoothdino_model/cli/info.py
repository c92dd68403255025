# SPDX-License-Identifier: Apache-2.0
"""``smoothdino info``: versions, devices, bundled and cached models, or one model's parts."""

from __future__ import annotations

import argparse
import json
import platform
import signal
from importlib import metadata
from typing import TYPE_CHECKING, Any

import cv2

from smoothdino_model.cli.model_arguments import add_which_model
from smoothdino_model.engines.process import signals_wait

if TYPE_CHECKING:
    from torch import nn

    from smoothdino_model.network.smoothdino import SmoothDino

LISTED = ('torch', 'transformers', 'huggingface_hub', 'numpy', 'rosbags', 'onnxruntime', 'rclpy')


def add_to(commands: Any) -> None:
    info = commands.add_parser(
        'info', help='versions, devices, bundled and cached models; or the parts of --model'
    )
    add_which_model(info)
    info.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.model or args.adapter:
        _tell_parts(args.model, args.adapter)
    else:
        _tell_surroundings()


def _tell_parts(name: str | None, adapter: str | None) -> None:
    """Say what a model is made of; parts that do not belong together are refused on loading."""
    with signals_wait(signal.SIGINT):
        from smoothdino_model.weights.checkpoint import load_model
        from smoothdino_model.weights.hub import DEFAULT_MODEL, resolve_model

    name = name or DEFAULT_MODEL
    model = load_model(name, adapter=adapter)
    backbone = model.backbone
    network: Any = backbone.network
    height, width = backbone.seen_size(480, 640)
    camera = backbone.trained_camera
    encoder = network.config.backbone_config
    heads = [network.neck, network.head]
    print(f'model           {name} ({resolve_model(name)})')
    print(
        f'encoder         {encoder.model_type}: {encoder.num_hidden_layers} layers of '
        f'{backbone.channels} channels, patches of {backbone.patch} px, '
        f'{_millions(network.backbone)}'
    )
    print(
        f'decoder         {network.config.model_type}: {network.config.fusion_hidden_size} '
        f'channels, {_millions(*heads)}'
    )
    print(f'input           {width}x{height} for a picture of 640x480')
    print(
        f'metric for      a focal length of {camera.focal_px:g} px at '
        f'{camera.width}x{camera.height}'
    )
    print(f'adapter         {_adapter_line(model)}')
    looks = 'known' if model.floor_looks else 'not known of this model at this input height'
    print(f'looks of floor  {looks}')


def _millions(*parts: nn.Module) -> str:
    weights = sum(value.numel() for part in parts for value in part.parameters())
    return f'{weights / 1e6:.1f} M weights'


def _adapter_line(model: SmoothDino) -> str:
    from smoothdino_model.weights.fingerprint import distance_to_encoder, is_same_encoder

    adapter = model.adapter
    if adapter is None:
        return f'none: the mean over the current and the last {model.memory} frames is decoded'
    apart = distance_to_encoder(adapter, model.backbone)
    if apart is None:
        fits = 'nobody knows on which encoder it was trained'
    elif is_same_encoder(apart):
        fits = 'trained on this encoder'
    else:
        fits = f'trained on an encoder whose weights differ from these by {100 * apart:.0f} %'
    return f'{_millions(adapter)}, a memory of {model.memory} frames; {fits}'


def _tell_surroundings() -> None:
    print(f'smoothdino      {_version("smoothdino_ros") or "run from a clone, not installed"}')
    print(f'python          {platform.python_version()} on {platform.platform()}')
    print(f'opencv          {cv2.__version__}')
    for name in LISTED:
        print(f'{name:<15} {_version(name) or "not installed"}')
    for line in _devices():
        print(f'device          {line}')

    from smoothdino_model.weights.hub import BUNDLED_MODELS

    for name, directory in BUNDLED_MODELS.items():
        state = directory if (directory / 'config.json').is_file() else 'missing'
        print(f'bundled model   {name} ({state})')
    for line in _cached_models() or ['none']:
        print(f'cached model    {line}')


def _version(distribution: str) -> str | None:
    """From the metadata alone: importing rclpy would take its libraries along."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    with signals_wait(signal.SIGINT):
        import torch

        from smoothdino_model.engines.choice import cpu_computes_in_bf16

    bf16 = 'bf16 in hardware' if cpu_computes_in_bf16() else 'bf16 emulated'
    devices = [f'cpu ({torch.get_num_threads()} threads, {bf16})']
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        devices.append(f'cuda:{i} ({gpu.name}, {gpu.total_memory / 2**30:.0f} GiB)')
    return devices


def _cached_models() -> list[str]:
    """The depth models in the local Hugging Face cache that are there with all their weights."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from smoothdino_model.weights.checkpoint import NETWORKS
    from smoothdino_model.weights.hub import weight_files

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    lines = set()
    for repo in repos:
        for revision in repo.revisions:
            directory = revision.snapshot_path
            try:
                config = json.loads((directory / 'config.json').read_text(encoding='utf-8'))
                kind = config['model_type']
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if kind in NETWORKS and weight_files(directory):
                lines.add(f'{repo.repo_id} ({repo.size_on_disk / 2**20:.0f} MiB)')
    return sorted(lines)
