# SPDX-License-Identifier: Apache-2.0
"""A recording may fail at any point: the frame is answered, and the failure is remembered."""

import pytest
import torch

from smoothdino_model.engines.cuda_graph import (
    GRAPHS_KEPT,
    TIMES_SEEN,
    GraphedStep,
)
from smoothdino_model.engines.recording import TensorsRead
from smoothdino_model.network.phase_correlation import phase_correlation
from support.tiny_networks import tiny_smoothdino

CPU = torch.device('cpu')


def forward(rgb, state):
    return rgb.float().mean(dim=3), None


def picture(height=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, height, 8, 3), dtype=torch.uint8, generator=generator)


class Captures:
    """Counts what is recorded; a replay gives what ``forward`` does unless told otherwise."""

    def __init__(self, error=None, replay=forward):
        self.shapes, self.error, self.replay = [], error, replay
        self.beside = []

    def __call__(self, step, rgb, beside):
        self.beside.append(beside)
        self.shapes.append(tuple(rgb.shape))
        if self.error is not None:
            raise self.error
        return lambda *step_of: self.replay(*step_of)


def answered(step, n, height=8):
    for i in range(n):
        rgb = picture(height, seed=i)
        assert torch.equal(step(rgb, None)[0], forward(rgb, None)[0])


@pytest.fixture
def any_speed(monkeypatch):
    """Let recordings on the CPU, which are no faster, count as faster."""
    seconds = iter([2.0, 1.0] * 1000)
    monkeypatch.setattr(
        'smoothdino_model.engines.cuda_graph._median_s', lambda step, rgb: next(seconds)
    )


def test_only_a_shape_that_comes_again_is_recorded(any_speed):
    captures = Captures()
    step = GraphedStep(forward, CPU, captures)
    answered(step, TIMES_SEEN - 1)
    assert captures.shapes == []
    answered(step, 5)
    assert step.recorded_shapes == captures.shapes == [(1, 8, 8, 3)]


@pytest.mark.parametrize(
    'error', [RuntimeError('capture is not permitted'), torch.OutOfMemoryError('no memory')]
)
def test_a_recording_that_fails_is_tried_once(error, any_speed):
    captures = Captures(error)
    step = GraphedStep(forward, CPU, captures)
    answered(step, 20)
    assert len(captures.shapes) == 1
    assert step.recorded_shapes == []


@pytest.mark.parametrize('flat', [False, True])
def test_an_empty_recording_is_refused(flat, any_speed):
    """Also one that is made before a lens cap, where a mirrored picture is the same."""
    rgb = torch.full((1, 8, 8, 3), 90, dtype=torch.uint8) if flat else picture()
    captures = Captures(replay=lambda rgb_, state: forward(rgb, state))
    step = GraphedStep(forward, CPU, captures)
    for _ in range(TIMES_SEEN):
        step(rgb, None)
    answered(step, 20)
    assert len(captures.shapes) == 1
    assert step.recorded_shapes == []


@pytest.mark.parametrize('error', [RuntimeError('replay'), torch.OutOfMemoryError('replay')])
def test_a_replay_that_fails_later_is_answered_without(error, any_speed):
    broken = False

    def replay(rgb, state):
        if broken:
            raise error
        return forward(rgb, state)

    captures = Captures(replay=replay)
    step = GraphedStep(forward, CPU, captures)
    answered(step, TIMES_SEEN)
    assert step.recorded_shapes
    broken = True
    answered(step, 10)
    assert step.recorded_shapes == []
    assert len(captures.shapes) == 1


def test_out_of_memory_gives_recordings_up_and_answers_the_frame(any_speed):
    scarce = False

    def hungry(rgb, state):
        nonlocal scarce
        if scarce:
            scarce = False
            raise torch.OutOfMemoryError('no memory')
        return forward(rgb, state)

    step = GraphedStep(hungry, CPU, Captures())
    answered(step, TIMES_SEEN)
    assert step.recorded_shapes
    scarce = True
    answered(step, 1, height=9)
    assert step.recorded_shapes == []


def test_few_recordings_are_kept_and_what_is_let_go_must_come_again_to_be_recorded(any_speed):
    captures = Captures()
    step = GraphedStep(forward, CPU, captures)
    heights = range(8, 8 + GRAPHS_KEPT + 1)
    for height in heights:
        answered(step, TIMES_SEEN, height)
        assert len(step.recorded_shapes) <= GRAPHS_KEPT
    assert (1, 8, 8, 3) not in step.recorded_shapes
    answered(step, TIMES_SEEN - 1, height=8)
    assert len(captures.shapes) == len(heights)


def test_a_recording_shares_the_memory_of_one_that_is_there_and_of_none_that_is_gone(any_speed):
    """A pool whose last graph is gone takes no more: PyTorch refuses it."""
    captures = Captures()
    step = GraphedStep(forward, CPU, captures)
    answered(step, TIMES_SEEN, height=8)
    first = step._recorded[1, 8, 8, 3]
    captures.error = RuntimeError('not this one')
    for height in range(9, 9 + GRAPHS_KEPT):  # until the only one there is let go
        answered(step, TIMES_SEEN, height)
    captures.error = None
    answered(step, TIMES_SEEN, height=30)
    assert captures.beside == [None, *[first] * (GRAPHS_KEPT - 1), None, None]
    assert step.recorded_shapes == [(1, 30, 8, 3)]


@torch.inference_mode()
def test_what_a_recording_reads_and_did_not_make_is_known():
    """The tables of a size are let go of by their cache, and the graph reads on."""
    model = tiny_smoothdino().eval()
    rgb = torch.randint(0, 256, (1, 75, 98, 3), dtype=torch.uint8)
    _, state = model(rgb, None)
    with TensorsRead() as read:
        depth_m, _ = model(rgb, state)
    known = {id(one) for one in read.tensors}
    tables = vars(phase_correlation(75, 98, CPU))
    assert {id(one) for one in tables.values() if isinstance(one, torch.Tensor)} <= known
    assert {id(one) for one in model.adapter.parameters()} <= known
    assert id(depth_m) not in known
    of_the_model = {id(one) for one in (*model.parameters(), *model.buffers())}
    others = [one for one in read.tensors if id(one) not in of_the_model]
    assert len(others) <= len(tables) + len(state.tensors) + 1  # and rgb
