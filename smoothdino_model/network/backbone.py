# SPDX-License-Identifier: Apache-2.0
"""One depth network of transformers (DINOv2 + DPT), split where the temporal adapter goes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DepthAnythingForDepthEstimation, DPTForDepthEstimation

from smoothdino_model.network.neck import fused_maps
from smoothdino_model.network.trained_camera import NYU, TrainedCamera

# ImageNet statistics on the 0-255 scale, which all DINOv2 models were trained with.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
ANY_WIDTH = 1_000_000  # px, of which every frame is so far that its height decides


@dataclass(frozen=True)
class Content:
    """Where the image lies in the padded network input, in pixels of the network input."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Features:
    """What the encoder saw: tokens of a few layers, shallow to deep.

    ``levels`` are (B, 1 + rows * columns, C) each, the class token first; ``grid`` is
    (rows, columns) in patches of the padded network input, ``content`` the image's place in it and
    ``frame_size`` the (height, width) that came in.
    """

    levels: tuple[Tensor, ...]
    grid: tuple[int, int]
    content: Content
    frame_size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """Normalised pixels (B, 3, rows * patch, columns * patch) and where the image lies in them."""

    pixels: Tensor
    content: Content
    frame_size: tuple[int, int]


class DepthBackbone(nn.Module):
    """Metric depth of single images: ``decode(encode(rgb))``.

    Takes a ``DPTForDepthEstimation`` on a DINOv2 backbone (Ranftl et al. 2021, Oquab et al. 2023)
    or a metric ``DepthAnythingForDepthEstimation`` (Yang et al. 2024). Callers hand over RGB
    uint8; normalisation, padding and its cropping live in here.

    ``input_height`` and ``input_width`` say, in pixels, how large the network sees frames: each
    keeps its shape and gets that height or that width, whichever scales it less, to whole patches
    (what transformers' DPTImageProcessor does with ``keep_aspect_ratio``). By default the height
    decides; 0 takes frames as they are and pads them. ``bicubic`` resizes them so, bilinearly is
    the default. ``trained_camera`` is the one for which its depth is metric; nothing in here
    scales by it.
    """

    def __init__(
        self,
        network: DPTForDepthEstimation | DepthAnythingForDepthEstimation,
        *,
        input_height: int = 0,
        input_width: int = ANY_WIDTH,
        bicubic: bool = False,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        trained_camera: TrainedCamera = NYU,
    ) -> None:
        super().__init__()
        _check_network(network)
        # The layout that convolutions are fastest in, on CPUs and in half precision on GPUs.
        cast(Any, network).to(memory_format=torch.channels_last)
        self.network = network
        encoder: Any = network.config.backbone_config
        self.patch = int(encoder.patch_size)
        self.channels = int(encoder.hidden_size)
        self.n_levels = len(encoder.out_features)
        self.trained_camera = trained_camera
        if input_height < 0 or 0 < input_height < self.patch:
            raise ValueError(
                f'input_height: expected 0 (the size of the frames) or at least {self.patch} px '
                f'(one patch), got {input_height}'
            )
        if input_width < self.patch:
            raise ValueError(
                f'input_width: expected at least {self.patch} px (one patch), got {input_width}'
            )
        self.input_height = input_height
        self.input_width = input_width
        self.bicubic = bicubic
        # Float32 whatever the network's dtype: half precision would round the pixels first.
        self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        luma_weights = (torch.tensor(std) * torch.tensor(LUMA)).view(1, 3, 1, 1)
        self.register_buffer('luma_weights', luma_weights, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.luma_weights: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    def forward(self, rgb: Tensor) -> Tensor:
        """Give plain per-frame depth (B, H, W) in metres for RGB uint8 (B, H, W, 3)."""
        return self.decode(self.encode(rgb))

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Give the (height, width) in pixels, whole patches, that the network sees a frame at."""
        if not self.input_height:
            return height + -height % self.patch, width + -width % self.patch
        by_height, by_width = self.input_height / height, self.input_width / width
        if abs(1 - by_width) < abs(1 - by_height):
            wanted: tuple[float, float] = (height * by_width, self.input_width)
        else:
            wanted = (self.input_height, width * by_height)
        return _whole_patches(wanted[0], self.patch), _whole_patches(wanted[1], self.patch)

    def preprocess(self, rgb: Tensor) -> NetworkInput:
        """Resize or pad to whole patches and normalise RGB uint8 (B, H, W, 3)."""
        if rgb.ndim != 4 or rgb.shape[-1] != 3 or rgb.dtype != torch.uint8 or 0 in rgb.shape:
            raise ValueError(
                f'expected RGB uint8 of shape (B, H, W, 3), got {rgb.dtype} of {tuple(rgb.shape)}'
            )
        height, width = int(rgb.shape[1]), int(rgb.shape[2])
        pixels = rgb.permute(0, 3, 1, 2).to(torch.float32)  # (B, 3, H, W)
        seen = self.seen_size(height, width)
        if self.input_height and seen != (height, width):
            mode = 'bicubic' if self.bicubic else 'bilinear'
            pixels = functional.interpolate(pixels, seen, mode=mode, antialias=True)
            if self.bicubic:
                pixels = pixels.clamp(0, 255)  # beside edges it shoots over
        size = seen if self.input_height else (height, width)
        top, bottom = _centred(seen[0] - size[0])
        left, right = _centred(seen[1] - size[1])
        padding = (left, right, top, bottom)
        pixels = (pixels - self.mean) / self.std
        if any(padding):
            pixels = functional.pad(pixels, padding)
        return NetworkInput(pixels, Content(top, left, *size), (height, width))

    def encode(self, rgb: Tensor) -> Features:
        """Encode RGB uint8 (B, H, W, 3)."""
        return self.encode_input(self.preprocess(rgb))

    def encode_input(self, network_input: NetworkInput) -> Features:
        encoder = cast(nn.Module, self.network.backbone)
        levels = encoder(network_input.pixels.to(self.dtype)).feature_maps
        return self.features(network_input, levels)

    def features(self, network_input: NetworkInput, levels: Iterable[Tensor]) -> Features:
        """Give levels of tokens as the features of the frames that made ``network_input``."""
        height, width = network_input.pixels.shape[2:]
        return Features(
            tuple(levels),
            (height // self.patch, width // self.patch),
            network_input.content,
            network_input.frame_size,
        )

    def luma(self, network_input: NetworkInput) -> Tensor:
        """Give the grey image (B, h, w), without its mean, of the content of a network input."""
        at = network_input.content
        pixels = network_input.pixels
        image = pixels[:, :, at.top : at.top + at.height, at.left : at.left + at.width]
        return torch.einsum('bchw,c->bhw', image, self.luma_weights.flatten())

    def decode(self, features: Features, size: tuple[int, int] | None = None) -> Tensor:
        """Give depth (B, height, width), float32 metres, aligned with the image.

        ``size`` is (height, width), by default the frame's own. Nothing is clamped: what the
        network returns is what comes out.
        """
        return self.cut_out(self.decode_padded(features), features, size or features.frame_size)

    def decode_padded(self, features: Features) -> Tensor:
        """Give the network's own map (B, h, w) of the padded input, float32 metres."""
        rows, columns = features.grid
        maps = fused_maps(self.network.neck, features.levels, rows, columns)
        if isinstance(self.network, DepthAnythingForDepthEstimation):
            return self.network.head(maps, rows, columns).float()
        return self.network.head(maps).float()

    def cut_out(self, depth: Tensor, features: Features, size: tuple[int, int]) -> Tensor:
        """Sample the content's part of the map (B, h, w) at the pixel centres of ``size``."""
        at = features.content
        padded = (features.grid[0] * self.patch, features.grid[1] * self.patch)
        if (at.height, at.width) == padded:
            return functional.interpolate(depth[:, None], size, mode='bilinear')[:, 0]
        y = _sampling_positions(size[0], at.top, at.height, padded[0], depth.device)
        x = _sampling_positions(size[1], at.left, at.width, padded[1], depth.device)
        grid = torch.stack(torch.meshgrid(x, y, indexing='xy'), dim=-1)  # (H, W, 2)
        return functional.grid_sample(
            depth[:, None],
            grid.expand(depth.shape[0], -1, -1, -1),
            mode='bilinear',
            padding_mode='border',
            align_corners=False,
        )[:, 0]


def _check_network(network: nn.Module) -> None:
    if not isinstance(network, DPTForDepthEstimation | DepthAnythingForDepthEstimation):
        raise ValueError(
            'expected DPTForDepthEstimation or DepthAnythingForDepthEstimation, '
            f'got {type(network).__name__}'
        )
    config = network.config
    encoder = getattr(config.backbone_config, 'model_type', None)
    if encoder != 'dinov2':
        raise ValueError(
            f'expected a depth network on a DINOv2 encoder, got {encoder or config.model_type}'
        )
    if (
        isinstance(network, DepthAnythingForDepthEstimation)
        and config.depth_estimation_type != 'metric'
    ):
        raise ValueError(
            f'expected a metric Depth Anything model, got one of {config.depth_estimation_type} '
            'depth; take one of the Depth-Anything-V2-Metric checkpoints'
        )


def _centred(total: int) -> tuple[int, int]:
    return total // 2, total - total // 2


def _whole_patches(pixels: float, patch: int) -> int:
    return max(1, round(pixels / patch)) * patch


def _sampling_positions(
    size: int, start: int, extent: int, padded: int, device: torch.device
) -> Tensor:
    """Pixel centres of ``size`` pixels over [start, start + extent), as grid_sample counts."""
    centres = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
    return 2 * (start + centres * extent) / padded - 1
