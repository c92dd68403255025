# SPDX-License-Identifier: Apache-2.0
"""The network as an ONNX file, for ONNX Runtime and what runs beside or below it.

The measurement of the shift stays outside: ONNX Runtime has no FFT on GPUs. What a file takes and
gives stands in its metadata, see :func:`export_onnx`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothdino_model.network.backbone import DepthBackbone, NetworkInput
from smoothdino_model.network.memory import Recalled
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.whole_files import written_whole

FILE_NAME = 'model.onnx'
EXPORTS_KEPT = 8  # in the cache of all models and sizes; of a large network each takes 1.3 GB
_OPSET = 20
_LARGEST_FILE = 1_900_000_000  # bytes of weights: one protobuf holds 2 GiB
_TOLERANCE = 1e-4  # of the largest value
_HALF_TOLERANCE = 2e-2
_TOLD = ('shift_patches', 'confidence', 'valid')  # what an adapter is told besides features
# What the exported graph is made of, besides the weights: a change makes a cached file old.
_SOURCES = (
    'network/adapter.py',
    'network/backbone.py',
    'network/memory.py',
    'network/neck.py',
    'network/smoothdino.py',
    'engines/onnx_export.py',
)

_log = logging.getLogger(__name__)


class ExportError(ValueError):
    """A model that cannot be exported, or not to what it computes."""


def export_onnx(
    model: SmoothDino, output: str | Path, *, size: tuple[int, int], temporal: bool = True
) -> Path:
    """Write a network for frames of ``size``, (height, width), and give the path of the file.

    ``output`` is a ``.onnx`` file, or a folder in which it is called ``model.onnx``; it appears
    there when it is whole and has given what PyTorch gives. Weights of 2 GB and more need the
    folder: they are files beside it.

    Inputs: ``pixels`` (B, 3, h, w), what :meth:`DepthBackbone.preprocess` makes of the frames;
    with a memory also ``recalled_<i>`` (B, 1 + N, C) and ``count`` (B, 1 + N, 1), what
    :func:`recall` makes of the ``features_<i>`` of the last frames; with an adapter
    ``shift_patches`` (B, 2) and ``confidence`` (B,), how the image moved since the previous
    frame, and ``valid`` (B,), False at a first frame. Outputs: ``depth_m`` (B, H, W) at the
    frames' size, and ``features_<i>``, those of these frames. The batch is free, the size is not.

    Raises :class:`ExportError`.
    """
    output = Path(output)
    is_file = output.suffix == '.onnx'
    temporal = temporal and model.temporal
    network = _Network(model, size, temporal)
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    if is_file and weights > _LARGEST_FILE:
        raise ExportError(
            f'{output}: expected a folder, since the weights of {weights / 2**30:.1f} GiB are too '
            'large for one file; leave out .onnx'
        )
    if not is_file and output.is_dir() and any(output.iterdir()):
        raise ExportError(f'{output} is a folder with something in it: expected a new name')
    output.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(output) as place:
        if not is_file:
            place.mkdir()
        path = place if is_file else place / FILE_NAME
        program = _exported(network)
        program.model.metadata_props.update(network.description())
        program.save(path, external_data=weights > _LARGEST_FILE)
        _check(network, path)
    return output if is_file else output / FILE_NAME


def cached_export(model: SmoothDino, *, size: tuple[int, int], temporal: bool) -> Path:
    """Give the exported network from the user's cache, where it is made if it is not there.

    The cache keeps the :data:`EXPORTS_KEPT` that were used last.
    """
    cache = (
        Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'smoothdino' / 'onnx'
    )
    folder = cache / _fingerprint(model, size, temporal)
    if not (folder / FILE_NAME).is_file():
        _log.warning('exporting the network for frames of %dx%d to %s', *size[::-1], folder)
        export_onnx(model, folder, size=size, temporal=temporal)
    os.utime(folder)
    by_use = sorted(cache.glob(f'*/{FILE_NAME}'), key=_last_use)
    for path in by_use[:-EXPORTS_KEPT]:
        _log.info('removing %s: %d exported networks were used since', path.parent, EXPORTS_KEPT)
        # A process that has loaded it keeps what it has.
        shutil.rmtree(path.parent, ignore_errors=True)
    return folder / FILE_NAME


def _last_use(path: Path) -> float:
    try:
        return path.parent.stat().st_mtime
    except FileNotFoundError:  # by another process, which removed it
        return 0.0


class _Network(nn.Module):
    """Encoder, adapter and decoder as a function of tensors alone, for frames of one size."""

    def __init__(self, model: SmoothDino, size: tuple[int, int], temporal: bool) -> None:
        super().__init__()
        self.model = model if temporal else SmoothDino(model.backbone)
        self.temporal = temporal
        image = torch.zeros(1, *size, 3, dtype=torch.uint8, device=self.backbone.mean.device)
        blank = self.backbone.preprocess(image)
        self._frames = self.backbone.features(blank, ())
        self._told = _TOLD if self.model.adapter else ()
        self._pixels = tuple(blank.pixels.shape[1:])

    @property
    def backbone(self) -> DepthBackbone:
        return self.model.backbone

    def forward(self, pixels: Tensor, *temporal: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone.encode_input(self._network_input(pixels))
        if not self.temporal:
            return (self.backbone.decode(features),)
        count, *rest = temporal
        levels = self.backbone.n_levels
        told = dict(zip(self._told, rest[levels:], strict=True))
        adapted = self.model.adapt_features(
            features, Recalled(tuple(rest[:levels]), count), **told
        )
        return self.backbone.decode(adapted), *features.levels

    def _network_input(self, pixels: Tensor) -> NetworkInput:
        return NetworkInput(pixels, self._frames.content, self._frames.frame_size)

    def names(self) -> tuple[list[str], list[str]]:
        """Give the names of the inputs and of the outputs."""
        if not self.temporal:
            return ['pixels'], ['depth_m']
        levels = range(self.backbone.n_levels)
        return (
            ['pixels', 'count', *(f'recalled_{i}' for i in levels), *self._told],
            ['depth_m', *(f'features_{i}' for i in levels)],
        )

    @torch.no_grad()
    def example(self, batch: int) -> tuple[Tensor, ...]:
        """Give inputs of soft coloured blobs: the last camera has no previous frame.

        What is recalled are the features of other such pictures, since a decoder may give nothing
        but zeros for numbers that no encoder gives.
        """
        like = self.backbone.mean
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(batch, *shape, generator=generator).to(like.device)

        def picture() -> Tensor:
            return functional.interpolate(random(3, 4, 4), self._pixels[1:], mode='bicubic')

        pixels = picture()
        if not self.temporal:
            return (pixels,)
        others = self.backbone.encode_input(self._network_input(picture())).levels
        count = random(others[0].shape[1], 1).abs()
        recalled = [(level * count).to(level.dtype) for level in others]
        if not self._told:
            return pixels, count, *recalled
        valid = torch.arange(batch, device=like.device) < batch - 1
        return pixels, count, *recalled, random(2), random().sigmoid(), valid

    def description(self) -> dict[str, str]:
        at = self._frames.content
        return {
            'frame_size': json.dumps(self._frames.frame_size),
            'content': json.dumps([at.top, at.left, at.height, at.width]),
            'patch': str(self.backbone.patch),
            'mean': json.dumps(self.backbone.mean.flatten().tolist()),
            'std': json.dumps(self.backbone.std.flatten().tolist()),
        }


def _exported(network: _Network) -> Any:
    inputs, outputs = network.names()
    example = network.example(batch=2)
    free = {0: torch.export.Dim('batch')}
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                network,
                example,
                input_names=inputs,
                output_names=outputs,
                # For pixels, and for what *temporal takes.
                dynamic_shapes=(free, (free,) * (len(example) - 1))[: len(example)],
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise ExportError(
            f'the export needs onnx and onnxscript ({error}): pip install onnx onnxscript'
        ) from error


def _check(network: _Network, path: Path) -> None:
    """Compare what the file gives in ONNX Runtime, where that is installed, with PyTorch."""
    try:
        import onnxruntime
    except ImportError:
        _log.warning('%s was not checked: onnxruntime is not installed', path.name)
        return
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    names, outputs = network.names()
    taken = {one.name for one in session.get_inputs()}
    tolerance = _TOLERANCE if network.backbone.dtype == torch.float32 else _HALF_TOLERANCE
    for batch in (1, 2):
        example = network.example(batch)
        fed = zip(names, example, strict=True)
        came = session.run(outputs, {k: v.cpu().numpy() for k, v in fed if k in taken})
        with torch.inference_mode():
            expected = network(*example)
        for name, one, other in zip(outputs, came, expected, strict=True):
            wanted = other.float().cpu()
            error = (torch.from_numpy(one).float() - wanted).abs().max() / wanted.abs().max()
            if not error <= tolerance:
                raise ExportError(
                    f'the exported network differs from PyTorch in {name} by {error:.1e} of its '
                    f"largest value, expected {tolerance:.0e}: take engine 'torch'"
                )


def _fingerprint(model: SmoothDino, size: tuple[int, int], temporal: bool) -> str:
    """Of everything that the exported network depends on."""
    digest = hashlib.sha256()
    adapter = model.adapter if temporal else None
    asked = (model.backbone.input_height, model.backbone.input_width)
    settings = [size, temporal, _OPSET, torch.__version__, asked, model.memory]
    digest.update(repr([*settings, adapter and adapter.config]).encode())
    digest.update(model.backbone.network.config.to_json_string().encode())
    for name in _SOURCES:
        digest.update((Path(__file__).parents[1] / name).read_bytes())
    for part in (model.backbone, adapter):
        for name, tensor in [] if part is None else part.state_dict().items():
            digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter prints, warns of and logs on its way."""
    chatty = [logging.getLogger(name) for name in ('onnx_ir', 'onnxscript', 'torch.onnx')]
    levels = [logger.level for logger in chatty]
    for logger in chatty:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)
