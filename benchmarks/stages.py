# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes, beside what its operations cost as plain matrix products."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from smoothdino_model.engines.choice import arithmetic, dtype_of
from smoothdino_model.engines.recording import Recording, current
from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.pipeline import DepthPipeline

_GEMM = {'cpu': 2048, 'cuda': 8192}  # large enough to be limited by the arithmetic alone


# Gives what repeats some work, and what it made, to whose place a repetition writes on a GPU.
Repeated = Callable[[Callable[[], Any]], tuple[Callable[[], Any], Any]]


@torch.inference_mode()
def stages(
    pipeline: DepthPipeline,
    frames: list[np.ndarray],
    clock: Callable[[], float],
    rounds: int,
    repeated: Repeated | None = None,
) -> tuple[dict[str, float], float]:
    """Give the median milliseconds of each stage of a frame that has a previous one.

    And the GFLOP per second of a product of two matrices in the pipeline's precision, taken in
    between. On a GPU a stage is a CUDA graph, as a frame is to the engine, so that none contains
    what Python takes to start kernels; each waits for the device, so that their sum is more than
    a frame takes.
    """
    model, device = pipeline.model, pipeline.device
    backbone = model.backbone
    repeated = repeated or (partial(_as_graph, device) if device.type == 'cuda' else _as_it_is)
    ms: dict[str, list[float]] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = clock()
        yield
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        ms.setdefault(stage, []).append(1e3 * (clock() - start))

    with current(device), arithmetic(pipeline.precision):
        rgb = torch.from_numpy(frames[0])[None].to(device)
        _, state = model.adapt(model.see(rgb), None)
        assert state is not None  # the pipeline has an adapter
        n = _GEMM.get(device.type, 2048)
        square = torch.randn(n, n).to(device, dtype_of(pipeline.precision))
        product = torch.empty_like(square)
        repeats: dict[str, Callable[[], Any]] = {}

        def made(stage: str, work: Callable[[], Any]) -> Any:
            repeats[stage], first = repeated(work)
            return first

        pixels = made('preprocess', lambda: backbone.preprocess(rgb))
        features = made('encode', lambda: backbone.encode_input(pixels))

        def moved() -> tuple[Any, Any]:
            seen = model.seen(pixels, features)
            return seen, model.measure(seen, state)

        seen, motion = made('shift', moved)
        adapted, _ = made('adapter', lambda: model.moved_on(seen, state, motion))
        padded = made('decode', lambda: backbone.decode_padded(adapted))
        size = adapted.frame_size
        depth_m = made('resize', lambda: backbone.cut_out(padded, adapted, size))
        made('gemm', lambda: torch.mm(square, square, out=product))
        for i in range(1 + rounds):  # the first one is to warm up
            with timed('upload'):
                rgb.copy_(torch.from_numpy(frames[(1 + i) % len(frames)])[None])
            for stage, repeat in repeats.items():
                with timed(stage):
                    repeat()
            with timed('download'):
                depth_m.cpu().numpy()
    medians = {stage: float(np.median(times[1:])) for stage, times in ms.items()}
    return medians, 2 * n**3 / 1e6 / medians.pop('gemm')


def _as_it_is(work: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
    return work, work()


def _as_graph(device: torch.device, work: Callable[[], Any]) -> tuple[Callable[[], Any], Any]:
    recording = Recording(work, device)
    return recording.replay, recording.made


def counted_gflop(network: Any, size: tuple[int, int]) -> dict[str, float]:
    """Count the operations of the stages as convolutions and products are written down.

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
    adapter = TemporalAdapter(AdapterConfig(backbone.channels, backbone.n_levels)).to('meta')
    confidence = pixels.new_zeros(1)
    with torch.no_grad(), FlopCounterMode(display=False) as adapting:
        adapter(
            features,
            features,
            shift_patches=pixels.new_zeros(1, 2),
            confidence=confidence,
            valid=confidence.bool(),
        )
    with torch.no_grad(), FlopCounterMode(display=False) as decoding:
        backbone.decode_padded(features)
    counts = {'encode': encoding, 'adapter': adapting, 'decode': decoding}
    return {stage: count.get_total_flops() / 1e9 for stage, count in counts.items()}
