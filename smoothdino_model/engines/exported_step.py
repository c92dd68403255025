# SPDX-License-Identifier: Apache-2.0
"""A step whose network another library runs; preprocessing, shift and memory stay in PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.network.temporal_state import TemporalState

SESSIONS_KEPT = 4  # sizes of frames; each holds the weights and the memory of a step


class ExportedStep(ABC):
    """Runs a network that is exported once for every size of frames."""

    def __init__(self, model: SmoothDino, *, device: torch.device, temporal: bool) -> None:
        self._model = model
        self._device = device
        self._temporal = temporal
        self._sessions: OrderedDict[tuple[int, int], Any] = OrderedDict()  # latest last

    @abstractmethod
    def _session(self, size: tuple[int, int]) -> Any:
        """Give what runs the network for frames of a size."""

    @abstractmethod
    def _run(
        self, size: tuple[int, int], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
    ) -> None:
        """Write the ``outputs`` where they lie."""

    def __call__(
        self, rgb: Tensor, state: TemporalState | None
    ) -> tuple[Tensor, TemporalState | None]:
        backbone = self._model.backbone
        network_input = backbone.preprocess(rgb)
        depth_m = rgb.new_empty(rgb.shape[:3], dtype=torch.float32)
        inputs, outputs = {'pixels': network_input.pixels}, {'depth_m': depth_m}
        if not self._temporal:
            self._run(network_input.frame_size, inputs, outputs)
            return depth_m, None
        frames = backbone.features(network_input, ())
        seen = self._model.seen(network_input, frames)
        tokens = (len(rgb), 1 + frames.grid[0] * frames.grid[1], backbone.channels)
        levels = [rgb.new_zeros(tokens, dtype=backbone.dtype) for _ in range(backbone.n_levels)]
        frames = replace(frames, levels=tuple(levels))
        if state is None:
            state = self._model.first_state(replace(seen, features=frames)).forgotten
        motion = self._model.measure(seen, state)
        recalled = self._model.recall(frames, state, motion)
        inputs |= {
            **self._model.told(state, motion),
            'count': recalled.count,
            **{f'recalled_{i}': level for i, level in enumerate(recalled.sums)},
        }
        outputs |= {f'features_{i}': level for i, level in enumerate(levels)}
        self._run(network_input.frame_size, inputs, outputs)
        return depth_m, self._model.next_state(frames, state, motion)

    def _session_for(self, size: tuple[int, int]) -> Any:
        if size not in self._sessions:
            while len(self._sessions) >= SESSIONS_KEPT:  # first, so that no more are ever held
                self._sessions.popitem(last=False)
            self._sessions[size] = self._session(size)
        self._sessions.move_to_end(size)
        return self._sessions[size]
