# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks.latency` times: each takes RGB uint8 (H, W, 3) and gives depth (H, W).

Weights are random, of the sizes of facebook/dpt-dinov2-<size>-nyu: time does not depend on them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Dinov2Config, DPTConfig, DPTForDepthEstimation

from smoothdino_model.engines.choice import dtype_of
from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.network.backbone import IMAGENET_MEAN, IMAGENET_STD, DepthBackbone
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.weights.checkpoint import load_model

PATCH = 14
PERIOD_NS = 33_333_333
# Channels, layers, heads, the layers that are decoded, the neck's channels.
SIZES: dict[str, tuple[int, int, int, list[int], list[int]]] = {
    'small': (384, 12, 6, [3, 6, 9, 12], [48, 96, 192, 384]),
    'base': (768, 12, 12, [3, 6, 9, 12], [96, 192, 384, 768]),
    'large': (1024, 24, 16, [5, 12, 18, 24], [128, 256, 512, 1024]),
    'giant': (1536, 40, 24, [10, 20, 30, 40], [192, 384, 768, 1536]),
}


def random_network(size: str) -> DPTForDepthEstimation:
    channels, layers, heads, levels, neck = SIZES[size]
    decoded: Any = {'out_indices': levels}
    encoder = Dinov2Config(
        hidden_size=channels,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        use_swiglu_ffn=size == 'giant',
        patch_size=PATCH,
        image_size=518,
        apply_layernorm=False,
        reshape_hidden_states=False,
        **decoded,
    )
    config = DPTConfig(
        backbone_config=encoder,
        neck_hidden_sizes=neck,
        fusion_hidden_size=256,
        readout_type='project',
        is_hybrid=False,
        add_projection=True,
        use_bias_in_fusion_residual=False,
    )
    torch.manual_seed(0)
    return DPTForDepthEstimation(config).eval().requires_grad_(False)


def network_of(model: str) -> Any:
    """Give a random network of one of SIZES, or that of a directory or Hugging Face id."""
    if model in SIZES:
        return random_network(model)
    return load_model(model, adapter='none').backbone.network.eval()


def next_size(network: Any) -> str:
    """Name the one of SIZES that is wider than this network."""
    channels = network.config.backbone_config.hidden_size
    return next((name for name in SIZES if SIZES[name][0] > channels), 'giant')


def pipeline_of(network: Any, *, input_height: int = 0, **settings: Any) -> DepthPipeline:
    """Give our pipeline on a copy of a network, with an adapter of the default width."""
    backbone = DepthBackbone(copy.deepcopy(network), input_height=input_height)
    adapter = TemporalAdapter(AdapterConfig(backbone.channels, backbone.n_levels))
    return DepthPipeline(SmoothDino(backbone, adapter), **settings)


class Ours:
    """A pipeline as the command line and the node run it, for a number of cameras."""

    def __init__(self, pipeline: DepthPipeline, cameras: int = 1) -> None:
        self.pipeline = pipeline
        self._cameras = [f'{i} of {cameras}' for i in range(cameras)]
        self._stamp_ns = 0

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        self._stamp_ns += PERIOD_NS
        frames = dict.fromkeys(self._cameras, CameraFrame(rgb, self._stamp_ns))
        return self.pipeline.step(frames)[self._cameras[0]].depth_m


class PerFrame:
    """Plain depth of single frames by the library's own network, in its own order."""

    def __init__(self, network: Any, device: torch.device, precision: str) -> None:
        self.network = copy.deepcopy(network).to(device, dtype_of(precision))
        self.device = device

    @torch.inference_mode()
    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        depth = self.network(self._pixels(rgb)).predicted_depth
        return self._at_size_of(rgb, depth)

    def _pixels(self, rgb: np.ndarray) -> Tensor:
        """Normalise on the host and pad to whole patches: (1, 3, h, w) on the device."""
        mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
        pixels = (torch.from_numpy(rgb).permute(2, 0, 1)[None].float() - mean) / std
        down, across = -rgb.shape[0] % PATCH, -rgb.shape[1] % PATCH
        padding = (across // 2, across - across // 2, down // 2, down - down // 2)
        return functional.pad(pixels, padding).to(self.device, self.network.dtype)

    def _at_size_of(self, rgb: np.ndarray, depth: Tensor) -> np.ndarray:
        depth = functional.interpolate(depth[:, None].float(), rgb.shape[:2], mode='bilinear')
        return depth[0, 0].cpu().numpy()


class Published(PerFrame):
    """The work of SmoothDINOv2's published loop, written from its description, in float32.

    For a frame it encodes three times (the previous frame, this one, this one again for its plain
    depth) and decodes twice; its ``demo`` needs two encodings and one decoding. The adapter's
    weights are random here: zeros take as long.
    """

    def __init__(self, network: Any, device: torch.device, *, demo: bool) -> None:
        super().__init__(network, device, 'fp32')
        self.demo = demo
        channels = network.config.backbone_config.hidden_size
        seen = channels + 2  # with dx and dy

        def two(layer: Callable[[int, int], nn.Module]) -> list[nn.Module]:
            return [
                nn.Sequential(layer(seen, seen), nn.ReLU(), layer(seen, channels)).to(device)
                for _ in network.config.neck_hidden_sizes
            ]

        self._convolutions = two(partial(nn.Conv2d, kernel_size=3, padding=1))
        self._linears = two(nn.Linear)
        self._previous: np.ndarray | None = None

    @torch.inference_mode()
    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        previous = rgb if self._previous is None else self._previous
        self._previous = rgb
        gray = [
            cv2.cvtColor(one, cv2.COLOR_RGB2GRAY).astype(np.float32) for one in (previous, rgb)
        ]
        shift, _ = cv2.phaseCorrelate(gray[0], gray[1])
        before, pixels = self._encode(self._pixels(previous)), self._pixels(rgb)
        grid = (pixels.shape[2] // PATCH, pixels.shape[3] // PATCH)
        adapted = [
            self._adapt(level, old, new, grid, shift)
            for level, (old, new) in enumerate(zip(before, self._encode(pixels), strict=True))
        ]
        depth_m = self._decode(adapted, grid, rgb)
        if not self.demo:
            self._decode(self._encode(pixels), grid, rgb)
        return depth_m

    def _encode(self, pixels: Tensor) -> list[Tensor]:
        return list(self.network.backbone(pixels).feature_maps)

    def _adapt(
        self, level: int, before: Tensor, now: Tensor, grid: tuple[int, int], shift: Any
    ) -> Tensor:
        moved = before.new_tensor(shift).expand(1, before.shape[1], 2)
        seen = torch.cat((before, moved), dim=2)  # (1, 1 + N, C + 2)
        patches = seen[:, 1:].transpose(1, 2).unflatten(2, grid)
        patches = self._convolutions[level](patches).flatten(2).transpose(1, 2)
        return now + torch.cat((self._linears[level](seen[:, :1]), patches), dim=1)

    def _decode(self, levels: list[Tensor], grid: tuple[int, int], rgb: np.ndarray) -> np.ndarray:
        return self._at_size_of(rgb, self.network.head(self.network.neck(levels, *grid)))
