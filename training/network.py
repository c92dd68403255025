# SPDX-License-Identifier: Apache-2.0
"""Networks to train: which pretrained ones there are, and fresh ones that start well."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, DPTConfig, DPTForDepthEstimation

from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone, Features
from smoothdino_model.room.sample_room import SampleRoom

# DINOv2 with DPT on NYUv2: what SmoothDINOv2 calls the size of the backbone.
BACKBONES = {
    size: f'facebook/dpt-dinov2-{size}-nyu' for size in ('small', 'base', 'large', 'giant')
}
_MEAN_INDOOR_DEPTH_M = 2.5  # where the fresh head starts: at zero its last ReLU would be dead
_ROOMS_SEEN = 8  # to know how large an encoder's tokens are
_LOG_FARTHEST = 3.5  # of the linear decoder: 33 m


@dataclass(frozen=True)
class NetworkSize:
    """A fresh DPT decoder, ``neck`` and ``fusion`` channels wide, on a DINOv2 encoder.

    ``encoder`` is a directory or a Hugging Face id of a ``Dinov2Model``, taken as it is; without
    one the encoder is a fresh one of ``hidden``, ``layers``, ``heads`` and ``image_size``.
    """

    encoder: str | None = None
    hidden: int = 192
    layers: int = 6
    heads: int = 3
    neck: tuple[int, int, int, int] = (24, 48, 96, 192)
    fusion: int = 48
    image_size: int = 294


@dataclass(frozen=True)
class AdapterSize:
    """A fresh adapter; see :class:`smoothdino_model.network.adapter.AdapterConfig`.

    ``parameters``, where given, decides ``hidden``: as wide as so many weights allow.
    """

    hidden: int = AdapterConfig.hidden
    parameters: int | None = None
    current: bool = True
    previous: bool = True
    align: bool = True
    recurrent: bool = False
    gated: bool = False
    min_confidence: float = 0.5


def fresh_adapter(size: AdapterSize, backbone: DepthBackbone) -> TemporalAdapter:
    settings = asdict(size)
    parameters = settings.pop('parameters')
    config = AdapterConfig(backbone.channels, backbone.n_levels, **settings)
    if parameters and config.sees_features:
        config = config.within(parameters)
    return TemporalAdapter(config)


def fresh_network(size: NetworkSize) -> DPTForDepthEstimation:
    trained = (
        Dinov2Model.from_pretrained(size.encoder, dtype=torch.float32) if size.encoder else None
    )
    encoder = trained.config if trained else _fresh_encoder(size)
    encoder = Dinov2Config.from_dict(encoder.to_dict() | _tapped(encoder.num_hidden_layers))
    network = DPTForDepthEstimation(
        DPTConfig(
            backbone_config=encoder,
            neck_hidden_sizes=list(size.neck),
            fusion_hidden_size=size.fusion,
            readout_type='project',
            is_hybrid=False,
            head_in_index=-1,
            use_batch_norm_in_fusion_residual=False,
            add_projection=False,
        )
    )
    _initialise(network)
    if trained is not None:
        cast(nn.Module, network.backbone).load_state_dict(trained.state_dict())
        _level_out(network)
    return network


@torch.no_grad()
def _level_out(network: DPTForDepthEstimation) -> None:
    """Let the decoder's first layers see each channel of the tokens alike, whatever its size.

    What DINOv2 says after a quarter of its layers is sixty times smaller than what it says at the
    end (deviations of .04, .08, .19 and 2.4, and means of up to 20): left so, the fine levels
    would hardly reach the output. Mean and deviation over a few rooms are folded into the weights.
    """
    pictures = [
        SampleRoom(seed, height=224, width=294).frame(0).rgb for seed in range(_ROOMS_SEEN)
    ]
    features = DepthBackbone(network.eval()).encode(torch.from_numpy(np.stack(pictures)))
    stage = cast(Any, network.neck).reassemble_stage
    for tokens, project in zip(features.levels, stage.readout_projects, strict=True):
        patches, class_token = tokens[:, 1:].flatten(0, 1), tokens[:, 0]
        # A class token comes once for a picture: its deviation is that of the patches.
        deviation = patches.std(dim=0).clamp(min=1e-6).repeat(2)
        mean = torch.cat((patches.mean(dim=0), class_token.mean(dim=0)))
        linear = project[0]  # of patch and class token, side by side
        linear.weight /= deviation
        linear.bias -= linear.weight @ mean


def _fresh_encoder(size: NetworkSize) -> Dinov2Config:
    return Dinov2Config(
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        patch_size=14,
        image_size=size.image_size,
        layerscale_value=1.0,  # DINOv2's 1e-5 is for far longer trainings
    )


def _tapped(layers: int) -> dict[str, Any]:
    """Settings of an encoder whose tokens are taken after each quarter of its layers."""
    return {
        'out_features': [f'stage{math.ceil(layers * quarter / 4)}' for quarter in (1, 2, 3, 4)],
        'out_indices': [math.ceil(layers * quarter / 4) for quarter in (1, 2, 3, 4)],
        'apply_layernorm': False,
        'reshape_hidden_states': False,
        'dtype': 'float32',
        '_name_or_path': '',  # a folder of whoever trains
    }


class LinearDecoder(nn.Module):
    """Depth from the tokens of the last level alone, by one linear layer.

    Each token gives the log of depth at half the resolution of its patch.
    """

    def __init__(self, backbone: DepthBackbone) -> None:
        super().__init__()
        self.side = backbone.patch // 2
        self.norm = nn.LayerNorm(backbone.channels)
        self.log_depth = nn.Linear(backbone.channels, self.side**2)
        nn.init.normal_(self.log_depth.weight, std=0.01)
        nn.init.constant_(self.log_depth.bias, math.log(_MEAN_INDOOR_DEPTH_M))

    def forward(self, frame: Features, tokens: Tensor) -> Tensor:
        """Give depth (B, T, H, W) in metres of tokens (B, T, 1 + N, C), of whole patches."""
        log_depth = self.log_depth(self.norm(tokens[:, :, 1:])).mT.flatten(0, 1)
        patches = F.pixel_shuffle(log_depth.unflatten(-1, frame.grid), self.side)
        sized = F.interpolate(patches.clamp(max=_LOG_FARTHEST).exp(), frame.frame_size)
        return sized[:, 0].unflatten(0, tokens.shape[:2])


@torch.no_grad()
def _initialise(network: DPTForDepthEstimation) -> None:
    """Start so that the signal keeps its size on the way through.

    transformers draws every weight with a deviation of 0.02, which suits wide networks that are
    to be fine-tuned. In one as narrow as this the picture would hardly reach the output, and
    thousands of steps would go by before it did.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity='linear')
    for name, module in network.neck.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity='linear')
        if name.endswith('convolution2'):  # residual units start as the identity
            nn.init.zeros_(cast(nn.Conv2d, module).weight)
    last = [module for module in network.head.modules() if isinstance(module, nn.Conv2d)][-1]
    nn.init.normal_(last.weight, std=0.1)
    nn.init.constant_(cast(Tensor, last.bias), _MEAN_INDOOR_DEPTH_M)
    for name, parameter in network.named_parameters():
        if name.endswith('patch_embeddings.projection.weight'):
            parameter.copy_(_whitened_cosines(parameter.shape[0], parameter.shape[-1]))
        if name.endswith('position_embeddings'):
            parameter[0, 1:] = 0.5 * _position_waves(parameter.shape[1] - 1, parameter.shape[2])


def _whitened_cosines(filters: int, patch: int) -> Tensor:
    """The lowest cosines of a patch (filters, 3, patch, patch), grey ones before coloured ones.

    Pictures hold less of a frequency the higher it is, about as its inverse; the filters make up
    for it, so that a token tells edges and textures from its first step on, not colour alone.
    """
    t = torch.arange(patch)
    waves = torch.cos(math.pi * (t + 0.5) * t[:, None] / patch)  # DCT-II
    waves = waves / waves.norm(dim=1, keepdim=True)
    gray = torch.full((3,), 3**-0.5)
    colors = torch.tensor([[0.0, 0.5, -0.5], [0.5, -0.5, 0.0]]) * 2**0.5
    bank = [
        (frequency * cost + extra, color, frequency, row, column)
        for color, cost, extra in ((gray, 1, 0), (colors[0], 3, 2), (colors[1], 3, 2))
        for row in range(patch)
        for column in range(patch)
        for frequency in (math.hypot(row, column),)
    ]
    bank.sort(key=lambda entry: entry[0])
    return torch.stack(
        [
            color[:, None, None] * torch.outer(waves[row], waves[column]) * max(0.12, 0.35 * f)
            for _, color, f, row, column in bank[:filters]
        ]
    )


def _position_waves(positions: int, channels: int) -> Tensor:
    """Sines and cosines of row and column (positions, channels) on a square grid (MAE, 2022)."""
    side = math.isqrt(positions)
    frequencies = 10000 ** -(torch.arange(channels // 4) / (channels // 4))
    angles = torch.arange(side)[:, None] * frequencies  # (side, C / 4)
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)  # (side, C / 2)
    rows = waves[:, None].expand(-1, side, -1)
    columns = waves[None].expand(side, -1, -1)
    return torch.cat((rows, columns), dim=2).reshape(positions, channels)
