# SPDX-License-Identifier: Apache-2.0
"""A step of the network as CUDA graphs, for the shapes of frames that come again.

A recorded graph starts all kernels of a step at once, where Python starts them one by one. It
holds its memory for as long as it lives and is bound to one shape, so few are kept, and only of
shapes that have come a few times. What cannot be recorded, or records wrongly, is remembered and
runs as it is.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from smoothdino_model.engines.one_piece import in_one_piece, parts_of
from smoothdino_model.network.smoothdino import Step
from smoothdino_model.network.temporal_state import TemporalState
from smoothdino_model.one_line import first_line

_log = logging.getLogger(__name__)

Made = TypeVar('Made')

GRAPHS_KEPT = 4  # sizes and batches; each holds the memory of a step
TIMES_SEEN = 3  # before a shape is worth recording
_SHAPES_COUNTED = 64
_TOLERANCE = 1e-2  # of the largest depth: algorithms may differ, pictures may not

# (forward, a batch of frames, a recording of its to share the memory of) -> what replays it
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
        record: Callable[..., Recording[Sequence[Tensor]]] | None = None,
    ) -> None:
        frame = self._frame = rgb.clone()
        _, first_state = forward(frame, None)
        states = self._states = None if first_state is None else StatePlace(first_state)

        def work() -> Sequence[Tensor]:
            depth_m, state = forward(frame, None if states is None else states.state)
            return (depth_m,) if state is None else (depth_m, *state.tensors)

        self._recording: Recording[Sequence[Tensor]] = (record or Recording)(
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
        elif state in self._pieces:
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


class Recording(Generic[Made]):
    """One call of ``work`` as a CUDA graph; ``made`` is what it gave, written anew by ``replay``.

    It is recorded in a stream of its own and with the thread's own mode of capture: what another
    thread asks of the device meanwhile is neither recorded nor an error. It shares the memory of
    ``beside``.
    """

    def __init__(
        self,
        work: Callable[[], Made],
        device: torch.device,
        beside: Recording[Any] | None = None,
    ) -> None:
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        # Leaving the block brings the thread back to its own stream, also by an exception.
        with torch.cuda.stream(aside), _algorithms_tried_out():
            for _ in range(2):
                work()
            with TensorsRead() as read:
                work()
            # A graph knows addresses: a table of this size stays, whichever cache lets it go.
            self._read = read.tensors
            aside.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                self._graph,
                pool=None if beside is None else beside._graph.pool(),
                stream=aside,
                capture_error_mode='thread_local',
            ):
                self.made = work()
        torch.cuda.current_stream(device).wait_stream(aside)

    def replay(self) -> None:
        self._graph.replay()


class TensorsRead(TorchDispatchMode):
    """Collects what operations read and none of those before them made: weights, tables."""

    def __init__(self) -> None:
        super().__init__()
        self._read: dict[int, Tensor] = {}
        self._made = WeakIdKeyDictionary()

    @property
    def tensors(self) -> list[Tensor]:
        return list(self._read.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for one in tree_leaves((args, kwargs)):
            if isinstance(one, Tensor) and one not in self._made:
                self._read[id(one)] = one
        came = func(*args, **(kwargs or {}))
        for one in tree_leaves(came):
            if isinstance(one, Tensor):
                self._made[one] = None
        return came


def current(device: torch.device) -> AbstractContextManager:
    return torch.cuda.device(device) if device.type == 'cuda' else contextlib.nullcontext()


@contextlib.contextmanager
def _algorithms_tried_out():
    """Let cuDNN try its algorithms out, unless equal runs were asked for, which that ends.

    One setting is changed and put back. TF32, which PyTorch allows convolutions by default, and
    what else the process has chosen stay as they are.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


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
