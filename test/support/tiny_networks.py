# SPDX-License-Identifier: Apache-2.0
"""Small random networks: fast, and alive, which fresh initialisations are not."""

from pathlib import Path

import torch
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Dinov2Model,
    DPTConfig,
    DPTForDepthEstimation,
)

from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.smoothdino import SmoothDino


def tiny_encoder(**settings) -> Dinov2Config:
    return Dinov2Config(
        **{
            'hidden_size': 24,
            'num_hidden_layers': 4,
            'num_attention_heads': 2,
            'mlp_ratio': 2,
            'patch_size': 14,
            'image_size': 70,
            'out_indices': [1, 2, 3, 4],
            'apply_layernorm': False,
            'reshape_hidden_states': False,
        }
        | settings
    )


def saved_encoder(folder: Path) -> Path:
    """Write a tiny encoder as published ones are, in half precision, and give its folder."""
    torch.manual_seed(0)
    Dinov2Model(tiny_encoder()).half().save_pretrained(folder / 'encoder')
    return folder / 'encoder'


def tiny_dpt(seed: int = 0, **encoder_settings) -> DPTForDepthEstimation:
    torch.manual_seed(seed)
    config = DPTConfig(
        backbone_config=tiny_encoder(**encoder_settings),
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        readout_type='project',
        is_hybrid=False,
        head_in_index=-1,
        use_batch_norm_in_fusion_residual=False,
        add_projection=False,
    )
    return _alive(DPTForDepthEstimation(config))


def tiny_depth_anything(seed: int = 0, **settings) -> DepthAnythingForDepthEstimation:
    torch.manual_seed(seed)
    config = DepthAnythingConfig(
        **{
            'backbone_config': tiny_encoder(apply_layernorm=True),
            'patch_size': 14,
            'reassemble_hidden_size': 24,
            'neck_hidden_sizes': [8, 8, 16, 16],
            'fusion_hidden_size': 16,
            'head_hidden_size': 16,
            'depth_estimation_type': 'metric',
            'max_depth': 10,
        }
        | settings
    )
    return _alive(DepthAnythingForDepthEstimation(config))


def _alive(network):
    """Make features and depth vary: fresh initialisations give almost constant ones."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(std=fan_in**-0.5)
            if name.endswith('lambda1'):
                parameter.fill_(1.0)
        last = [m for m in network.head.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        last.bias.fill_(2.0)
    return network.eval()


def tiny_smoothdino(seed: int = 0, **adapter_settings) -> SmoothDino:
    """Give a small model whose adapter has something to say."""
    backbone = DepthBackbone(tiny_dpt(seed))
    settings = {'hidden': 8} | adapter_settings
    adapter = TemporalAdapter(AdapterConfig(backbone.channels, **settings))
    with torch.no_grad():
        for parameter in adapter.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return SmoothDino(backbone, adapter).eval()
