# SPDX-License-Identifier: Apache-2.0
"""The network as whoever exports it sees it: a function of tensors for frames of one size.

The measurement of the shift stays outside: ONNX Runtime has no FFT on GPUs.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothdino_model.network.backbone import DepthBackbone, NetworkInput
from smoothdino_model.network.memory import Recalled
from smoothdino_model.network.smoothdino import SmoothDino

_TOLERANCE = 1e-4  # of the largest value
_HALF_TOLERANCE = 2e-2
_TOLD = ('shift_patches', 'confidence', 'valid')  # what an adapter is told besides features


class ExportError(ValueError):
    """A model that cannot be exported, or not to what it computes."""


class TensorNetwork(nn.Module):
    """Encoder, adapter and decoder as a function of tensors alone, for frames of one size.

    Takes and gives what :func:`smoothdino_model.engines.onnx_export.export_onnx` describes.
    """

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

    def check(self, example: Sequence[Tensor], came: Sequence[np.ndarray]) -> None:
        """Raise :class:`ExportError` where ``came`` is not what PyTorch makes of ``example``."""
        tolerance = _TOLERANCE if self.backbone.dtype == torch.float32 else _HALF_TOLERANCE
        with torch.inference_mode():
            expected = self(*example)
        for name, one, other in zip(self.names()[1], came, expected, strict=True):
            wanted = other.float().cpu()
            error = (torch.from_numpy(one).float() - wanted).abs().max() / wanted.abs().max()
            if not error <= tolerance:
                raise ExportError(
                    f'the exported network differs from PyTorch in {name} by {error:.1e} of its '
                    f"largest value, expected {tolerance:.0e}: take engine 'torch'"
                )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters print, warn of and log on their way."""
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
