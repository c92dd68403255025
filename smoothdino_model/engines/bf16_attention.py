# SPDX-License-Identifier: Apache-2.0
"""The encoder's attention in bf16 on a CPU that multiplies it in vector instructions.

PyTorch's fused attention reaches a third of the rate of matrix products there (AVX-512 bf16, no
AMX). With the scores of one head written out, products and softmax run at their own rates, and
since a head's scores fit in the cache, little is lost by writing them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

_NAME = 'smoothdino_bf16'


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **settings: Any
) -> tuple[Tensor, None]:
    """Give softmax(query key^T / sqrt(D)) value, (B, N, heads, D), of (B, heads, N, D) each.

    Scores are rounded to the precision of ``query``. What all keys have in common moves all scores
    of a query alike and changes no softmax: without it scores are smaller and round finer
    (SageAttention, Zhang et al. 2025).
    """
    scale = settings.get('scaling') or query.shape[-1] ** -0.5
    key = key - key.mean(dim=-2, keepdim=True)
    query = query * scale
    batch, heads, tokens, size = value.shape
    out = value.new_empty(batch, tokens, heads, size)
    for image in range(batch):
        for head in range(heads):
            scores = query[image, head] @ key[image, head].T
            out[image, :, head] = torch.softmax(scores, dim=-1) @ value[image, head]
    return out, None


def with_written_scores(encoder: PreTrainedModel) -> None:
    """Let an encoder of transformers attend by :func:`attend`.

    Versions of the library that do not take an attention by name go on as they are.
    """
    AttentionInterface.register(_NAME, attend)
    encoder.config._attn_implementation = _NAME
