# SPDX-License-Identifier: Apache-2.0
"""Exported networks in the user's cache: made once, and removed when others were used since."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from smoothdino_model.network.smoothdino import SmoothDino

EXPORTS_KEPT = 8  # of a kind, of all models and sizes; of a large network each takes 1.3 GB
# What an exported graph is made of, besides the weights: a change makes a cached file old.
_SOURCES = (
    *(f'network/{name}.py' for name in ('adapter', 'backbone', 'memory', 'neck', 'smoothdino')),
    *(f'engines/{name}.py' for name in ('tensor_network', 'onnx_export', 'openvino')),
)

_log = logging.getLogger(__name__)


def cached(
    model: SmoothDino,
    *,
    size: tuple[int, int],
    temporal: bool,
    kind: str,
    file_name: str,
    made_with: tuple[object, ...],
    write: Callable[[Path], object],
) -> Path:
    """Give the file of a network for frames of ``size``, in a folder that ``write`` makes.

    ``write`` gets the path of a folder that is not there, and lets it appear when it is whole.
    ``made_with`` are versions and settings: with others it is made anew. Of each ``kind`` the
    cache keeps the :data:`EXPORTS_KEPT` that were used last.
    """
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'smoothdino' / kind
    folder = cache / _fingerprint(model, size, temporal, made_with)
    if not (folder / file_name).is_file():
        _log.warning('exporting the network for frames of %dx%d to %s', *size[::-1], folder)
        write(folder)
    os.utime(folder)
    by_use = sorted(cache.glob(f'*/{file_name}'), key=_last_use)
    for path in by_use[:-EXPORTS_KEPT]:
        _log.info('removing %s: %d exported networks were used since', path.parent, EXPORTS_KEPT)
        # A process that has loaded it keeps what it has.
        shutil.rmtree(path.parent, ignore_errors=True)
    return folder / file_name


def _last_use(path: Path) -> float:
    try:
        return path.parent.stat().st_mtime
    except FileNotFoundError:  # by another process, which removed it
        return 0.0


def _fingerprint(
    model: SmoothDino, size: tuple[int, int], temporal: bool, made_with: tuple[object, ...]
) -> str:
    """Of everything that the exported network depends on."""
    digest = hashlib.sha256()
    adapter = model.adapter if temporal else None
    asked = (model.backbone.input_height, model.backbone.input_width)
    settings = [size, temporal, *made_with, torch.__version__, asked, model.memory]
    digest.update(repr([*settings, adapter and adapter.config]).encode())
    digest.update(model.backbone.network.config.to_json_string().encode())
    for name in _SOURCES:
        digest.update((Path(__file__).parents[1] / name).read_bytes())
    for part in (model.backbone, adapter):
        for name, tensor in [] if part is None else part.state_dict().items():
            digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
