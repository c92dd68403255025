# SPDX-License-Identifier: Apache-2.0
"""Which encoder an adapter was trained on, known again from a few numbers."""

from __future__ import annotations

import logging
import math
from typing import cast

import numpy as np
import torch
from torch import nn

from smoothdino_model.network.adapter import TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone

_SAME = 0.01  # as a share of the weights; what rounding to bf16 makes is a fifth of it
_FINE_TUNED = 0.5  # beyond, nothing is left in common
_WEIGHTS = 4096  # of each matrix

_log = logging.getLogger(__name__)


def encoder_fingerprint(backbone: DepthBackbone) -> list[float]:
    """Give one number for each weight matrix of the encoder: a fixed random direction's share.

    The shares are normal deviates, which differ between two encoders by about one, and by as much
    as the weights' relative change between an encoder and what was made of it by training or by
    rounding.
    """
    signs = torch.from_numpy(np.random.RandomState(0).choice((-1.0, 1.0), _WEIGHTS)).float()
    encoder = cast(nn.Module, backbone.network.backbone)
    shares = []
    for name, value in sorted(encoder.state_dict().items()):
        if value.ndim < 2 or name.endswith('mask_token'):  # which depth does not depend on
            continue
        weights = value.detach().cpu().float().flatten()[:_WEIGHTS]
        share = weights @ signs[: len(weights)] / weights.norm().clamp(min=1e-12)
        shares.append(round(float(share), 4))
    return shares


def distance_to_encoder(adapter: TemporalAdapter, backbone: DepthBackbone) -> float | None:
    """Give how far the weights of the adapter's encoder are from these, as a share of them.

    None where nobody knows on which encoder it was trained, as of a published SmoothDINOv2 file;
    infinity where the two are built differently.
    """
    if adapter.encoder is None:
        return None
    here = encoder_fingerprint(backbone)
    if len(here) != len(adapter.encoder):
        return math.inf
    return float(np.median(np.abs(np.subtract(here, adapter.encoder))))


def is_same_encoder(apart: float) -> bool:
    return apart <= _SAME


def check_encoder(adapter: TemporalAdapter, backbone: DepthBackbone, name: str) -> None:
    """Refuse an adapter of another encoder, and warn of one of what this was made of."""
    apart = distance_to_encoder(adapter, backbone)
    if apart is None or is_same_encoder(apart):
        return
    if apart > _FINE_TUNED:
        raise ValueError(
            f'{name} was trained on another encoder: take one that was trained on this, or none'
        )
    _log.warning(
        '%s was trained on an encoder whose weights differ from these by %.0f %%, as if one '
        'had been fine-tuned: whether it helps here has to be measured',
        name,
        100 * apart,
    )
