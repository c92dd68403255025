# SPDX-License-Identifier: Apache-2.0
"""``smoothdino info``: versions, devices, bundled and cached models."""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata
from typing import Any

import cv2

LISTED = ('torch', 'transformers', 'huggingface_hub', 'numpy', 'rosbags', 'onnxruntime', 'rclpy')


def add_to(commands: Any) -> None:
    info = commands.add_parser('info', help='versions, devices, bundled and cached models')
    info.set_defaults(run=run)


def run(_: argparse.Namespace) -> None:
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
