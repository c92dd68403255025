# SPDX-License-Identifier: Apache-2.0
"""A step of the network as CUDA graphs, for the shapes of frames that come again.

A recorded graph starts all kernels of a step at once, where Python starts them one by one. What
has to hold of it, and why it does:

- Every frame gets the answer of the step as it is. A recording is compared with it before it is
  used, and where one fails, at whatever point, the step itself answers.
- Nothing is tried twice that failed once. A shape counts as refused before its recording begins.
- Depth and states are values. They are copied out of the memory that the next replay writes to.
- Memory has a bound. A graph holds that of a step and is bound to one shape, so few are kept, of
  shapes that have come a few times, and none where memory has run out.
- All of it happens on the step's own device, whichever is the current one.

The making of a graph itself is in recording.py. Nothing in here needs a GPU to run, and the tests
run it on the CPU with work that repeats itself in the place of a graph.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from smoothdino_model.engines.one_piece import in_one_piece, parts_of
from smoothdino_model.engines.recording import Recording, current
from smoothdino_model.network.smoothdino import Step
from smoothdino_model.network.temporal_state import TemporalState
from smoothdino_model.one_line import first_line

_log = logging.getLogger(__name__)

GRAPHS_KEPT = 4  # sizes and batches; each holds the memory of a step
TIMES_SEEN = 3  # before a shape is worth recording
_SHAPES_COUNTED = 64
_TOLERANCE = 1e-2  # of the largest depth: algorithms may differ, pictures may not

# (forward, a batch of frames, what shares its memory) -> what replays it
Capture = Callable[[Step, Tensor, Any], Step]


class GraphedStep:
    """Runs ``forward`` on ``device``, recorded by ``capture`` where that is faster.

    For a shape of frames it is one of three: not seen often enough, recorded, or refused. A
    recording that fails, gives another depth than ``forward`` or is slower is refused for as long
    as the shape is remembered; one that fails later, at its replay, is refused from then on, and
    the frame is answered all the same. When memory runs out, all recordings are given up and the
    frame is tried once more without.
    """

    def __init__(
        self, forward: Step, device: torch.device, capture: Capture | None = None
    ) -> None:
        self._forward = forward
        self._device = device
        self._capture: Capture = capture or RecordedStep
        self._times_seen = Counter[tuple[int, ...]]()
        # Latest last; None: refused.
        self._recorded: OrderedDict[tuple[int, ...], Step | None] = OrderedDict()

    def __call__(
        self, rgb: Tensor, state: TemporalState | None
    ) -> tuple[Tensor, TemporalState | None]:
        # Streams and graphs are those of the current device, whichever the tensors are on.
        with current(self._device):
            try:
                return self._answer(rgb, state)
            except torch.OutOfMemoryError as error:
                _log.warning('giving up CUDA graphs for want of memory: %s', first_line(error))
            # Only here: an error that is being handled keeps what the step had made.
            self._give_up()
            return self._forward(rgb, state)

    def _answer(
        self, rgb: Tensor, state: TemporalState | None
    ) -> tuple[Tensor, TemporalState | None]:
        shape = tuple(rgb.shape)
        recorded = self._of_shape(shape, rgb)
        if recorded is not None:
            try:
                return recorded(rgb, state)
            except RuntimeError as error:
                self._refuse(shape, f'its replay failed: {first_line(error)}')
        return self._forward(rgb, state)

    @property
    def recorded_shapes(self) -> list[tuple[int, ...]]:
        return [shape for shape, step in self._recorded.items() if step is not None]

    def _of_shape(self, shape: tuple[int, ...], rgb: Tensor) -> Step | None:
        if shape in self._recorded:
            self._recorded.move_to_end(shape)
            return self._recorded[shape]
        if len(self._times_seen) >= _SHAPES_COUNTED:
            self._times_seen.clear()
        self._times_seen[shape] += 1
        if self._times_seen[shape] < TIMES_SEEN:
            return None
        # First, so that whatever happens now, it is not tried again.
        self._recorded[shape] = None
        while len(self._recorded) > GRAPHS_KEPT:
            let_go, _ = self._recorded.popitem(last=False)
            # More sizes in turn than are kept would else record at every frame.
            del self._times_seen[let_go]
        try:
            # Of one that is there: a pool whose graphs are all gone takes no more of them.
            beside = next((step for step in self._recorded.values() if step is not None), None)
            recorded = self._capture(self._forward, rgb, beside)
            fault = self._fault_of(recorded, rgb)
        except Exception as error:  # what cannot be recorded, no memory for it, another PyTorch
            fault = first_line(error)
        if fault:
            self._refuse(shape, fault)
        else:
            self._recorded[shape] = recorded
        return self._recorded[shape]

    def _fault_of(self, recorded: Step, rgb: Tensor) -> str:
        """Say why a recording is not used, empty where it is."""
        other = rgb ^ 128  # an empty graph repeats the picture that it was recorded with
        for first, then in ((rgb, other), (other, rgb)):
            expected_m, state = self._forward(first, None)
            came_m, recorded_state = recorded(first, None)
            if state is not None and recorded_state is not None:
                expected_m, _ = self._forward(then, state)
                came_m, _ = recorded(then, recorded_state)
            error = float((came_m - expected_m).abs().max())
            largest = float(expected_m.abs().max())
            if not error <= _TOLERANCE * max(largest, 1e-6):
                return f'it gives another depth, by {error:.3g} m of {largest:.3g}'
        plain_s, recorded_s = (_median_s(step, rgb) for step in (self._forward, recorded))
        if recorded_s >= plain_s:
            return f'it takes {1e3 * recorded_s:.2f} ms, and {1e3 * plain_s:.2f} ms without'
        _log.info(
            'frames of %s: %.2f ms as a CUDA graph, %.2f ms without',
            *(tuple(rgb.shape), 1e3 * recorded_s, 1e3 * plain_s),
        )
        return ''

    def _refuse(self, shape: tuple[int, ...], reason: str) -> None:
        self._recorded[shape] = None
        _log.warning('no CUDA graph for frames of %s: %s', shape, reason)

    def _give_up(self) -> None:
        for shape in self._recorded:
            self._recorded[shape] = None
        # It can fail after a recording that broke off, and the frame is tried again all the same.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


class RecordedStep:
    """One call of ``forward`` for one shape, recorded by ``record``.

    Frames are copied to where the recording reads them, and what it wrote is copied from there:
    the next replay writes to the same memory, and neither depth nor a state may change under
    whoever keeps it. It shares the memory of ``beside``, which never runs at the same time.
    """

    def __init__(
        self,
        forward: Step,
        rgb: Tensor,
        beside: RecordedStep | None,
        record: Callable[..., Recording[Sequence[Tensor]]] = Recording,
    ) -> None:
        frame = self._frame = rgb.clone()
        _, first_state = forward(frame, None)
        states = self._states = None if first_state is None else StatePlace(first_state)

        def work() -> Sequence[Tensor]:
            depth_m, state = forward(frame, None if states is None else states.state)
            return (depth_m,) if state is None else (depth_m, *state.tensors)

        self._recording: Recording[Sequence[Tensor]] = record(
            work, rgb.device, None if beside is None else beside._recording
        )

    def __call__(
        self, rgb: Tensor, state: TemporalState | None
    ) -> tuple[Tensor, TemporalState | None]:
        self._frame.copy_(rgb)
        if self._states is not None:
            self._states.put(state)
        self._recording.replay()
        depth_m, *next_state = self._recording.made
        return depth_m.clone(), None if self._states is None else self._states.given(next_state)


class StatePlace:
    """A place for states like ``like``, in one piece of memory; ``state`` is what lies there.

    A state has a dozen tensors, and to start a dozen copies takes longer than to make them. In
    one piece it takes one copy in and one out, whatever the number of cameras.
    """

    def __init__(self, like: TemporalState) -> None:
        self._piece = torch.zeros_like(in_one_piece(like.tensors))
        self.state = like.with_tensors(parts_of(self._piece, like.tensors))
        self._pieces = WeakKeyDictionary[TemporalState, Tensor]()  # of states that were given

    def put(self, state: TemporalState | None) -> None:
        """Copy a state, of whatever origin, here; None is the one of cameras at their first."""
        if state is None:
            self._piece.zero_()  # and so not valid
            return
        state.check_followed_by(len(self.state.valid), self.state.frame_size)
        if state in self._pieces:
            self._piece.copy_(self._pieces[state])
        else:
            for kept, came in zip(self.state.tensors, state.tensors, strict=True):
                kept.copy_(came)

    def given(self, tensors: Sequence[Tensor]) -> TemporalState:
        """Give a state of copies of ``tensors``, which nothing writes to again."""
        piece = in_one_piece(tensors)
        state = self.state.with_tensors(parts_of(piece, tensors))
        self._pieces[state] = piece
        return state


def _median_s(step: Step, rgb: Tensor) -> float:
    """Median of ten calls as they follow each other in a stream of frames."""
    seconds = []
    _, state = step(rgb, None)
    for _ in range(10):
        _wait_for(rgb.device)
        start = time.perf_counter()
        _, state = step(rgb, state)
        _wait_for(rgb.device)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def _wait_for(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
