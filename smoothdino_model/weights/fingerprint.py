# SPDX-License-Identifier: Apache-2.0
"""Which encoder an adapter was trained on, known again from a few numbers."""

from __future__ import annotations

import logging
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


def check_encoder(adapter: TemporalAdapter, backbone: DepthBackbone, name: str) -> None:
    """Refuse an adapter of another encoder, and warn of one of an encoder that this was made of.

    Of a published SmoothDINOv2 file nobody knows on which encoder it was trained.
    """
    if adapter.encoder is None:
        return
    here = encoder_fingerprint(backbone)
    apart = float('inf')
    if len(here) == len(adapter.encoder):
        apart = float(np.median(np.abs(np.subtract(here, adapter.encoder))))
    if apart > _FINE_TUNED:
        raise ValueError(
            f'{name} was trained on another encoder: take one that was trained on this, or none'
        )
    if apart > _SAME:
        _log.warning(
            '%s was trained on an encoder whose weights differ from these by %.0f %%, as if one '
            'had been fine-tuned: whether it helps here has to be measured',
            name,
            100 * apart,
        )
