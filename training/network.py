# SPDX-License-Identifier: Apache-2.0
"""Networks to train: which pretrained ones there are, and fresh ones that start well."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, DPTConfig, DPTForDepthEstimation

from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.room.sample_room import SampleRoom

# DINOv2 with DPT on NYUv2: what SmoothDINOv2 calls the size of the backbone.
BACKBONES = {
    size: f'facebook/dpt-dinov2-{size}-nyu' for size in ('small', 'base', 'large', 'giant')
}
_MEAN_INDOOR_DEPTH_M = 2.5  # where the fresh head starts: at zero its last ReLU would be dead
_ROOMS_SEEN = 8  # to know how large an encoder's tokens are


@dataclass(frozen=True)
class NetworkSize:
    """A fresh DPT decoder, ``neck`` and ``fusion`` channels wide, on a DINOv2 encoder.

    ``encoder`` is a directory or a Hugging Face id of a ``Dinov2Model``, taken as it is.
    """

    encoder: str = 'facebook/dinov2-small'
    neck: tuple[int, int, int, int] = (32, 64, 128, 256)
    fusion: int = 48


@dataclass(frozen=True)
class AdapterSize:
    """A fresh adapter; see :class:`smoothdino_model.network.adapter.AdapterConfig`.

    ``parameters``, where given, decides ``hidden``: as wide as so many weights allow.
    """

    hidden: int = AdapterConfig.hidden
    parameters: int | None = None
    memory: int = AdapterConfig.memory
    current: bool = True


def fresh_adapter(size: AdapterSize, backbone: DepthBackbone) -> TemporalAdapter:
    settings = asdict(size)
    parameters = settings.pop('parameters')
    config = AdapterConfig(backbone.channels, backbone.n_levels, **settings)
    if parameters and config.sees_features:
        config = config.within(parameters)
    return TemporalAdapter(config)


def fresh_network(size: NetworkSize) -> DPTForDepthEstimation:
    trained = Dinov2Model.from_pretrained(size.encoder, dtype=torch.float32)
    encoder = Dinov2Config.from_dict(
        trained.config.to_dict() | _tapped(trained.config.num_hidden_layers)
    )
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
