# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes, beside what its operations cost as plain matrix products."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from smoothdino_model.engines.choice import dtype_of
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.pipeline import DepthPipeline

_GEMM = 2048


@torch.inference_mode()
def stages(
    pipeline: DepthPipeline, frames: list[np.ndarray], clock: Callable[[], float], rounds: int
) -> tuple[dict[str, float], float]:
    """Give the median milliseconds of each stage of a frame that has a previous one.

    And the GFLOP per second of a product of two matrices in the pipeline's precision, taken in
    between. Each waits for the device, so that on a GPU their sum is more than a frame takes.
    """
    model, device = pipeline.model, pipeline.device
    backbone = model.backbone
    ms: dict[str, list[float]] = {}
    square = torch.randn(_GEMM, _GEMM).to(device, dtype_of(pipeline.precision))
    product = torch.empty_like(square)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = clock()
        yield
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        ms.setdefault(stage, []).append(1e3 * (clock() - start))

    _, state = model.adapt(model.see(torch.from_numpy(frames[0])[None].to(device)), None)
    assert state is not None  # the pipeline has an adapter
    for i in range(1 + rounds):  # the first one is to warm up
        with timed('upload'):
            rgb = torch.from_numpy(frames[(1 + i) % len(frames)])[None].to(device)
        with timed('preprocess'):
            pixels = backbone.preprocess(rgb)
        with timed('encode'):
            features = backbone.encode_input(pixels)
        with timed('shift'):
            seen = model.seen(pixels, features)
            motion = model.measure(seen, state)
        with timed('adapter'):
            adapted, state = model.moved_on(seen, state, motion)
        with timed('decode'):
            padded = backbone.decode_padded(adapted)
        with timed('resize'):
            depth_m = backbone.cut_out(padded, adapted, adapted.frame_size)
        with timed('download'):
            depth_m.cpu().numpy()
        with timed('gemm'):
            torch.mm(square, square, out=product)
    medians = {stage: float(np.median(times[1:])) for stage, times in ms.items()}
    return medians, 2 * _GEMM**3 / 1e6 / medians.pop('gemm')


def counted_gflop(network: Any, size: tuple[int, int]) -> dict[str, float]:
    """Count the operations of encoder and decoder as convolutions and products are written down.

    In our order, in which the decoder has fewer than in the library's. Winograd does fewer still.
    """
    backbone = DepthBackbone(copy.deepcopy(network))
    encoder: Any = backbone.network.backbone
    empty = backbone.preprocess(torch.zeros(1, *size, 3, dtype=torch.uint8))
    backbone.to('meta')
    pixels = empty.pixels.to('meta')
    with torch.no_grad(), FlopCounterMode(display=False) as encoding:
        levels = encoder(pixels).feature_maps
    features = backbone.features(empty, levels)
    with torch.no_grad(), FlopCounterMode(display=False) as decoding:
        backbone.decode_padded(features)
    return {
        'encode': encoding.get_total_flops() / 1e9,
        'decode': decoding.get_total_flops() / 1e9,
    }
