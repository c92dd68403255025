# SPDX-License-Identifier: Apache-2.0
"""What the frozen encoder gave for a frame, kept on disk."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smoothdino_model.network.backbone import ANY_WIDTH, DepthBackbone, Features, NetworkInput
from smoothdino_model.whole_files import written_whole


class FeatureCache:
    """Encodes each frame once, for all runs that share ``directory``; one file per frame.

    A file is found by the encoder's weights and the frame's pixels, so that no other encoder, size
    or picture can be taken for it. Frames are encoded alone, in full precision, and rounded to
    half precision before their first use as well: what comes out is the same whatever was encoded
    before or beside it. It pays where frames come back, so not with augmented ones. The files of
    ViT-S take 5 MB per frame of 490x644 and nothing removes them.
    """

    def __init__(self, directory: str | Path, backbone: DepthBackbone) -> None:
        self.backbone = backbone
        self.directory = Path(directory) / encoder_digest(backbone)

    @torch.no_grad()
    def encode(self, rgb: Tensor, network_input: NetworkInput) -> Features:
        """Give what ``backbone.encode_input(network_input)`` would for RGB uint8 (B, H, W, 3)."""
        pixels = network_input.pixels
        frames = [
            self._frame(image.cpu(), replace(network_input, pixels=pixels[i : i + 1]))
            for i, image in enumerate(rgb)
        ]
        # Widened first: autocast on a CPU does not stack half precision.
        stacked = torch.stack([frame.float() for frame in frames], dim=1).to(pixels.device)
        grid = (pixels.shape[2] // self.backbone.patch, pixels.shape[3] // self.backbone.patch)
        return Features(
            tuple(stacked.unbind()), grid, network_input.content, network_input.frame_size
        )

    def _frame(self, image: Tensor, one: NetworkInput) -> Tensor:
        """Give the levels (L, 1 + N, C) of one frame (H, W, 3), in half precision."""
        pixels = f'{tuple(image.shape)}'.encode() + image.numpy().tobytes()
        name = hashlib.sha256(pixels).hexdigest()
        path = self.directory / name[:2] / f'{name}.safetensors'
        try:
            return load_file(path)['levels']
        except FileNotFoundError:
            pass
        except (OSError, SafetensorError, KeyError):
            path.unlink(missing_ok=True)  # cut short by a full disk, for example
        with torch.autocast(one.pixels.device.type, enabled=False):
            levels = torch.cat(self.backbone.encode_input(one).levels).half().cpu()
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as place:
            save_file({'levels': levels}, place)
        return levels


def encoder_digest(backbone: DepthBackbone) -> str:
    """Name an encoder and its input by what they are: weights, size and normalisation."""
    config: Any = backbone.network.config.backbone_config
    settings = (config.out_features, config.num_attention_heads, config.apply_layernorm)
    size = str(backbone.input_height)
    if backbone.input_width != ANY_WIDTH:
        size += f'x{backbone.input_width}'
    if backbone.bicubic:
        size += ' bicubic'
    digest = hashlib.sha256(f'{size} {settings}'.encode())
    encoder = cast(nn.Module, backbone.network.backbone)
    for tensor in (backbone.mean, backbone.std, *encoder.state_dict().values()):
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
