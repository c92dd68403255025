# SPDX-License-Identifier: Apache-2.0
"""The neck of a DPT decoder (Ranftl et al. 2021) in a cheaper order than the library's.

A fusion layer enlarges its map and then projects it pixel by pixel. Bilinear weights sum to one,
so both orders give the same map, and projecting first costs a quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

_DOUBLING, _FITTING = 'DPTNeck', 'DepthAnythingNeck'  # to what size a layer enlarges its map
_STAGES = ('reassemble_stage', 'convs', 'fusion_stage')
_LAYERS = ('residual_layer1', 'residual_layer2', 'projection')


def fused_maps(neck: nn.Module, levels: Sequence[Tensor], rows: int, columns: int) -> list[Tensor]:
    """Give what ``neck(levels, rows, columns)`` gives: maps (B, C, h, w), coarse to fine.

    A neck that is not built as the ones of DPT and Depth Anything runs as it is.
    """
    parts: Any = neck
    if not _is_known(parts):
        return parts(list(levels), rows, columns)
    maps = parts.reassemble_stage(list(levels), rows, columns)
    maps = [convolve(one) for convolve, one in zip(parts.convs, maps, strict=True)][::-1]
    fused: list[Tensor] = []
    for i, (layer, one) in enumerate(zip(parts.fusion_stage.layers, maps, strict=True)):
        if fused:
            if one.shape != fused[-1].shape:
                one = functional.interpolate(one, fused[-1].shape[2:], mode='bilinear')
            one = fused[-1] + layer.residual_layer1(one)
        one = layer.projection(layer.residual_layer2(one))
        if type(parts).__name__ == _FITTING and i + 1 < len(maps):
            size = maps[i + 1].shape[2:]
        else:
            size = (2 * one.shape[2], 2 * one.shape[3])
        corners = getattr(layer, 'align_corners', True)
        fused.append(functional.interpolate(one, size, mode='bilinear', align_corners=corners))
    return fused


def _is_known(neck: Any) -> bool:
    """By the attributes that all versions of the library share."""
    if type(neck).__name__ not in (_DOUBLING, _FITTING):
        return False
    if not all(isinstance(getattr(neck, name, None), nn.Module) for name in _STAGES):
        return False
    layers = getattr(neck.fusion_stage, 'layers', ())
    return len(layers) == len(neck.convs) and all(
        hasattr(layer, name) for layer in layers for name in _LAYERS
    )
