# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime holds few sizes at a time, the latest used ones."""

import torch

from smoothdino_model.engines.onnx import SESSIONS_KEPT, OnnxEngine
from support.tiny_networks import tiny_smoothdino


class Counting(OnnxEngine):
    """Makes an object for a session and remembers for which sizes."""

    def __init__(self):
        cpu = torch.device('cpu')
        super().__init__(tiny_smoothdino(), engine='onnxruntime', device=cpu, temporal=True)
        self.made = []

    def _session(self, size):
        assert len(self._sessions) < SESSIONS_KEPT
        self.made.append(size)
        return object()


def test_sizes_that_change_hold_a_bounded_number_of_sessions():
    engine = Counting()
    sizes = [(14 * i, 14) for i in range(1, SESSIONS_KEPT + 1)]
    first, *others = [engine._session_for(size) for size in sizes]
    assert engine._session_for(sizes[0]) is first
    engine._session_for((14, 140))  # the least recently used one, the second, goes
    assert engine._session_for(sizes[0]) is first
    assert [engine._session_for(size) for size in sizes[2:]] == others[1:]
    assert engine.made == [*sizes, (14, 140)]
    engine._session_for(sizes[1])
    assert engine.made[-1] == sizes[1]
