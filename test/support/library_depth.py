# SPDX-License-Identifier: Apache-2.0
"""What a model gives with the library's own decoder, and how near to it counts as the same."""

import numpy as np
import torch

from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.network.temporal_state import TemporalState


def batch(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rgb))[None]


def by_the_library(
    model: SmoothDino, rgb: torch.Tensor, state: TemporalState | None
) -> tuple[torch.Tensor, TemporalState | None]:
    """What a model gives with the library's own decoder and PyTorch's own convolutions."""
    backbone, network = model.backbone, model.backbone.network
    features, next_state = model.adapt(model.see(rgb), state)
    depth = network.head(network.neck(list(features.levels), *features.grid))
    if state is None:
        assert torch.equal(depth, network(backbone.preprocess(rgb).pixels).predicted_depth)
    return backbone.cut_out(depth, features, features.frame_size), next_state


def relative_error(came: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((came - expected).abs() / expected.abs().clamp(min=0.1)).max())


def assert_close(came: torch.Tensor, expected: torch.Tensor) -> None:
    assert came.shape == expected.shape
    largest = float((expected.abs() if expected.dtype != torch.bool else expected).max())
    torch.testing.assert_close(came, expected, rtol=1e-4, atol=1e-4 * largest)
