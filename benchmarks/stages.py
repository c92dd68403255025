# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes, beside what its operations cost as plain matrix products."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from smoothdino_model.engine import PRECISIONS
from smoothdino_model.model import SmoothDino
from smoothdino_model.phase_correlation import windowed_spectrum
from smoothdino_model.pipeline import DepthPipeline

_GEMM = 2048


@torch.inference_mode()
def stages(
    pipeline: DepthPipeline, frames: list[np.ndarray], clock: Callable[[], float], rounds: int
) -> tuple[dict[str, float], float]:
    """Give the median milliseconds of each stage of a frame that has a previous one.

    And the GFLOP per second of a product of two matrices of the pipeline's precision, taken in
    between. Each stage waits for the device, so that on a GPU their sum is more than a frame takes.
    """
    model, device = pipeline.model, pipeline.device
    backbone, adapter = model.backbone, model.adapter
    assert adapter is not None
    ms: dict[str, list[float]] = {}
    square = torch.randn(_GEMM, _GEMM).to(device, PRECISIONS[pipeline.precision])
    product = torch.empty_like(square)

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = clock()
        result = work()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        ms.setdefault(stage, []).append(1e3 * (clock() - start))
        return result

    first = backbone.preprocess(torch.from_numpy(frames[0])[None].to(device))
    spectrum = windowed_spectrum(backbone.luma(first))
    _, state = model.adapt(backbone.encode_input(first), spectrum, None)
    for i in range(1 + rounds):
        image = torch.from_numpy(frames[(1 + i) % len(frames)])[None]
        before = state

        def shift() -> Any:
            spectrum = windowed_spectrum(backbone.luma(pixels))  # noqa: B023
            return model.measure(spectrum, features, before)  # noqa: B023

        rgb = timed('upload', lambda: image.to(device))  # noqa: B023
        pixels = timed('preprocess', lambda: backbone.preprocess(rgb))  # noqa: B023
        features = timed('encode', lambda: backbone.encode_input(pixels))  # noqa: B023
        motion = timed('shift', shift)
