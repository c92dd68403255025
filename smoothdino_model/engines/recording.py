# SPDX-License-Identifier: Apache-2.0
"""Work on an NVIDIA GPU as a CUDA graph: recorded once, repeated at one call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

Made = TypeVar('Made')


class Recording(Generic[Made]):
    """One call of ``work`` as a CUDA graph; ``made`` is what it gave, written anew by ``replay``.

    A graph knows addresses and nothing else: ``work`` reads tensors that stay where they are, and
    whoever wants what it made copies it before the next replay, of this or of one that shares its
    memory. ``work`` neither asks the device for a value nor brings it one, which can't be
    recorded. ``device`` is the current one.
    """

    def __init__(
        self,
        work: Callable[[], Made],
        device: torch.device,
        beside: Recording[Any] | None = None,
    ) -> None:
        # The default stream cannot be recorded. What it was given before is done first.
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        # Leaving the block brings the thread back to its own stream, also by an exception.
        with torch.cuda.stream(aside), _algorithms_tried_out():
            # Libraries set themselves up at their first calls, which can't be recorded either.
            for _ in range(2):
                work()
            with TensorsRead() as read:
                work()
            # A table of this size stays for the graph, whichever cache lets it go.
            self._read = read.tensors
            aside.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                self._graph,
                # What ``beside`` made stays its own; what it needed in between serves both, since
                # they never run at the same time.
                pool=None if beside is None else beside._graph.pool(),
                stream=aside,
                # What another thread asks of the device is neither recorded nor an error.
                capture_error_mode='thread_local',
            ):
                self.made = work()
        torch.cuda.current_stream(device).wait_stream(aside)

    def replay(self) -> None:
        """Do it again, in the current stream and after all that this was given before."""
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
