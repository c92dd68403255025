# SPDX-License-Identifier: Apache-2.0
"""A step of the network as a CUDA graph, where that is faster."""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
from torch import Tensor

from smoothdino_model.network.smoothdino import Step, TemporalState
from smoothdino_model.one_line import first_line

_log = logging.getLogger(__name__)


class CudaEngine:
    """Runs ``forward`` as a CUDA graph where that is faster, measured once for every shape."""

    def __init__(self, forward: Step) -> None:
        self._forward = forward
        self._fastest: dict[tuple[int, ...], Step] = {}

    def __call__(
        self, rgb: Tensor, state: TemporalState | None
    ) -> tuple[Tensor, TemporalState | None]:
        shape = tuple(rgb.shape)
        if shape not in self._fastest:
            self._fastest[shape] = self._measured(rgb)
        return self._fastest[shape](rgb, state)

    def _measured(self, rgb: Tensor) -> Step:
        try:
            graph = _CudaGraph(self._forward, rgb)
        except RuntimeError as error:  # what cannot be captured, or no memory for it
            _log.warning('no CUDA graph for %s: %s', tuple(rgb.shape), first_line(error))
            torch.cuda.empty_cache()
            return self._forward
        eager_s, graph_s = _seconds_on_cuda(self._forward, rgb), _seconds_on_cuda(graph, rgb)
        _log.info(
            '%s: %.2f ms as a CUDA graph, %.2f ms without',
            tuple(rgb.shape),
            1e3 * graph_s,
            1e3 * eager_s,
        )
        return graph if graph_s < eager_s else self._forward


class _CudaGraph:
    """One call of ``forward`` for one shape, recorded: no kernel waits for Python."""

    def __init__(self, forward: Step, rgb: Tensor) -> None:
        # Trying algorithms out makes runs differ: not for whom asked for equal ones.
        tried_out = torch.backends.cudnn.flags(
            enabled=True, benchmark=not torch.are_deterministic_algorithms_enabled()
        )
        aside = torch.cuda.Stream(rgb.device)
        aside.wait_stream(torch.cuda.current_stream(rgb.device))
        self._rgb = rgb.clone()
        with tried_out:
            with torch.cuda.stream(aside):
                _, state = forward(self._rgb, None)
                self._state = None if state is None else state.each(torch.zeros_like)
                for _ in range(3):
                    forward(self._rgb, self._state)
            torch.cuda.current_stream(rgb.device).wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._depth_m, self._next_state = forward(self._rgb, self._state)

    def __call__(
        self, rgb: Tensor, state: TemporalState | None
    ) -> tuple[Tensor, TemporalState | None]:
        self._rgb.copy_(rgb)
        if self._state is not None and state is None:
            self._state.valid.zero_()
        elif self._state is not None and state is not None:
            for kept, came in zip(self._state.tensors, state.tensors, strict=True):
                kept.copy_(came)
        self._graph.replay()
        # Cloned: the next replay writes to the same memory.
        next_state = self._next_state
        return self._depth_m.clone(), None if next_state is None else next_state.each(torch.clone)


def _seconds_on_cuda(engine: Step, rgb: Tensor) -> float:
    """Median of ten calls as they follow each other in a stream of frames."""
    seconds = []
    _, state = engine(rgb, None)
    for _ in range(10):
        torch.cuda.synchronize(rgb.device)
        start = time.perf_counter()
        _, state = engine(rgb, state)
        torch.cuda.synchronize(rgb.device)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
