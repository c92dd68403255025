# SPDX-License-Identifier: Apache-2.0
"""A step that is recorded is the step as it is, whatever becomes of its states and recordings."""

import itertools
import weakref
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from smoothdino_model.engines import cuda_graph
from smoothdino_model.engines.cuda_graph import (
    GRAPHS_KEPT,
    TIMES_SEEN,
    GraphedStep,
    RecordedStep,
)
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from support.repeated_work import RepeatedWork
from support.tiny_networks import tiny_dpt, tiny_smoothdino

CPU = torch.device('cpu')
NETWORKS = {
    'plain': lambda: SmoothDino(DepthBackbone(tiny_dpt())),
    'memory': lambda: SmoothDino(DepthBackbone(tiny_dpt()), memory=2),
    'memory and adapter': tiny_smoothdino,
}
on_cpu = partial(RecordedStep, record=RepeatedWork)


def ride(n, *, cameras=1, height=42, seed=0):
    """Give pictures (B, H, W, 3) that move, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    size = (cameras, height + 2 * n, 56 + 3 * n, 3)
    whole = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return [whole[:, 2 * i : 2 * i + height, 3 * i : 3 * i + 56].contiguous() for i in range(n)]


def assert_equal(came, expected):
    """Depth and states, bit for bit; of frames that are not known there is nothing to compare."""
    assert torch.equal(came[0], expected[0])
    assert (came[1] is None) == (expected[1] is None)
    if came[1] is None:
        return
    known = came[1].recallable
    for one, other in zip(came[1].tensors, expected[1].tensors, strict=True):
        assert one.dtype == other.dtype
        remembered = one.ndim > 1 and one.shape[:2] == known.shape and one.dtype != torch.bool
        assert torch.equal(*(t[known] if remembered else t for t in (one, other)))


@pytest.fixture
def any_speed(monkeypatch):
    """Let recordings on the CPU, which are no faster, count as faster."""
    seconds = itertools.cycle([2.0, 1.0])
    monkeypatch.setattr(cuda_graph, '_median_s', lambda step, rgb: next(seconds))


# --- values


@torch.inference_mode()
@pytest.mark.parametrize('cameras', [1, 3])
@pytest.mark.parametrize('network', NETWORKS)
def test_a_stream_is_what_it_is_without(network, cameras, any_speed):
    model = NETWORKS[network]().eval()
    step = GraphedStep(model, CPU, on_cpu)
    state = expected_state = None
    for rgb in ride(10, cameras=cameras):
        came, expected = step(rgb, state), model(rgb, expected_state)
        assert_equal(came, expected)
        state, expected_state = came[1], expected[1]
    assert step.recorded_shapes == [(cameras, 42, 56, 3)]


@torch.inference_mode()
def test_depth_and_states_that_somebody_keeps_change_under_nobody():
    """And one may go on from any of them, as often as one likes."""
    model = tiny_smoothdino()
    frames = ride(8)
    step = on_cpu(model, frames[0], None)
    kept = [step(frames[0], None)]
    for rgb in frames[1:]:
        kept.append(step(rgb, kept[-1][1]))
    expected = [model(frames[0], None)]
    for rgb in frames[1:]:
        expected.append(model(rgb, expected[-1][1]))
    for came, one in zip(kept, expected, strict=True):
        assert_equal(came, one)
    for i in (2, 6, 2):
        assert_equal(step(frames[7], kept[i][1]), model(frames[7], expected[i][1]))
    assert_equal(step(frames[7], None), step(frames[7], kept[3][1].forgotten))
    for came, one in zip(kept, expected, strict=True):
        assert_equal(came, one)


@torch.inference_mode()
@pytest.mark.parametrize('wrong', [{'cameras': 1}, {'height': 56}], ids=str)
def test_a_state_of_other_frames_is_refused_in_words_and_costs_no_recording(wrong, any_speed):
    """One camera's state would else be copied to all."""
    model = tiny_smoothdino()
    step = GraphedStep(model, CPU, on_cpu)
    frames = ride(4, cameras=2)
    for rgb in frames:
        step(rgb, None)
    _, other = model(ride(1, **{'cameras': 2, **wrong})[0], None)
    with pytest.raises(ValueError, match='start afresh with state=None'):
        step(frames[0], other)
    assert step.recorded_shapes == [(2, 42, 56, 3)]
    assert_equal(step(frames[0], None), model(frames[0], None))


def recording_pipeline():
    pipeline = DepthPipeline(tiny_smoothdino(), device='cpu', precision='fp32')
    pipeline._network = GraphedStep(pipeline._network, CPU, on_cpu)
    return pipeline


def test_cameras_come_and_go_in_any_company(any_speed):
    """They share recordings, states go from one to another, and some begin anew."""
    clips = {name: ride(40, seed=seed) for seed, name in enumerate('abc')}
    plain = DepthPipeline(tiny_smoothdino(), device='cpu', precision='fp32')
    recording = recording_pipeline()
    for t, company in enumerate(['a', 'ab', 'a', 'b', 'abc', 'c', 'cba', 'abc'] * 5):
        if t % 7 == 3:
            for pipeline in (plain, recording):
                pipeline.reset('a')
        frames = {name: CameraFrame(clips[name][t][0].numpy(), t) for name in company}
        for came, expected in zip(
            recording.step(frames).values(), plain.step(frames).values(), strict=True
        ):
            assert (came.depth_m == expected.depth_m).all()
            assert came.shift_px == expected.shift_px
            assert came.reset == expected.reset
    assert len(recording._network.recorded_shapes) == 3


class Copies(TorchDispatchMode):
    """Counts the operations of its block that move something."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in ('aten::copy_', 'aten::clone', 'aten::cat', 'aten::_to_copy'):
            self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_cameras_that_stay_together_cost_no_more_copies_than_one(any_speed, monkeypatch):
    counts = {}
    for n in (1, 4):
        pipeline = recording_pipeline()
        clips = [ride(10, seed=seed) for seed in range(n)]
        for t in range(10):
            frames = {str(i): CameraFrame(clips[i][t][0].numpy(), t) for i in range(n)}
            with monkeypatch.context() as patch, Copies() as copies:
                if t == 9:
                    patch.setattr(RepeatedWork, 'replay', lambda self: None)
                pipeline.step(frames)
        counts[n] = copies.names
    assert counts[4] == counts[1]
    names = [name.removeprefix('aten::') for name in counts[1]]
    assert names[:2] == ['copy_', 'copy_']  # picture and state, to where they are read
    assert names[2:4] == ['clone', 'cat']  # depth and state, from where they were written
    assert names[4:] == ['cat', 'cat', 'copy_']  # motion, and with depth in one piece to the host


# --- failures


class Fault:
    """Raises an error at one point of a recording's life, once or from then on."""

    def __init__(self, point, error):
        self.point, self.error, self.recordings = point, error, 0
        self.at_work = False

    def at(self, point):
        if point == self.point:
            raise self.error

    def __call__(self, work, device, beside):
        self.recordings += 1
        self.at('before')
        self.at_work = True
        try:
            recording = RepeatedWork(work, device, beside)
        finally:
            self.at_work = False
        self.at('at the end')
        repeat = recording.replay

        def replay():
            if recording.replays == 0:
                self.at('at the first replay')
            if recording.replays == 7:  # those of the check come before
                self.at('at a later replay')
            repeat()
            if recording.replays == 8:
                self.at('behind a later replay')

        recording.replay = replay
        return recording


RECORDING = ['before', 'during', 'at the end', 'at the first replay']
LATER = ['at a later replay', 'behind a later replay']
FAULTS = [
    *itertools.product(RECORDING, [RuntimeError, torch.OutOfMemoryError, TypeError]),
    *itertools.product(LATER, [RuntimeError, torch.OutOfMemoryError]),
]


@torch.inference_mode()
@pytest.mark.parametrize(('point', 'error'), FAULTS)
def test_a_recording_that_fails_costs_no_frame_and_no_state(point, error, any_speed):
    fault = Fault(point, error('as told'))
    model = tiny_smoothdino()

    def during(*_):
        if fault.at_work:
            fault.at('during')

    model.backbone.network.head.register_forward_pre_hook(during)
    step = GraphedStep(model, CPU, partial(RecordedStep, record=fault))
    state = expected_state = None
    for rgb in ride(20):
        came, expected = step(rgb, state), model(rgb, expected_state)
        assert_equal(came, expected)
        state, expected_state = came[1], expected[1]
    assert fault.recordings == 1
    assert step.recorded_shapes == []


@torch.inference_mode()
def test_when_memory_runs_out_all_of_it_is_free_before_the_frame_is_tried_again(
    any_speed, monkeypatch
):
    """Recordings, and what the broken step and its error held."""
    events, alive = [], []

    class Activation(torch.Tensor):
        pass

    def hungry(rgb, state):
        made = rgb.float().mean(dim=3).as_subclass(Activation)
        if scarce and 'emptied' not in events:
            alive.append(weakref.ref(made))
            raise torch.OutOfMemoryError('no memory')
        return made.as_subclass(torch.Tensor), None

    def empty():
        events.append('emptied')
        assert [one() for one in alive] == [None] * len(alive)
        raise RuntimeError('as after a recording that broke off')

    def capture(forward, rgb, beside):
        recorded = RecordedStep(forward, rgb, beside, record=RepeatedWork)
        alive.append(weakref.ref(recorded))
        return recorded

    monkeypatch.setattr(torch.cuda, 'empty_cache', empty)
    scarce = False
    step = GraphedStep(hungry, CPU, capture)
    for height in (42, 56):
        for rgb in ride(TIMES_SEEN, height=height):
            step(rgb, None)
    assert len(step.recorded_shapes) == len(alive) == 2
    scarce = True
    rgb = ride(1)[0]
    assert torch.equal(step(rgb, None)[0], rgb.float().mean(dim=3))
    assert events == ['emptied']
    assert len(alive) == 2 + 2  # of the replay, and of the step without
    assert step.recorded_shapes == []


@torch.inference_mode()
def test_everything_is_done_on_the_steps_own_device(any_speed, monkeypatch):
    """Two GPUs: the current one is the one of the step, at each point, and as it was behind."""
    entered = ['the current one']

    @contextmanager
    def current(device):
        entered.append(device)
        try:
            yield
        finally:
            entered.pop()

    monkeypatch.setattr(cuda_graph, 'current', current)
    seen = []

    def on(device):
        def forward(rgb, state):
            seen.append((device, entered[-1]))
            return rgb.float().mean(dim=3), None

        return forward

    devices = [torch.device('cuda', i) for i in range(2)]
    steps = [GraphedStep(on(device), device, on_cpu) for device in devices]
    monkeypatch.setattr(cuda_graph, '_wait_for', lambda device: None)
    for rgb in ride(2 * TIMES_SEEN):
        for step in steps:
            assert torch.equal(step(rgb, None)[0], rgb.float().mean(dim=3))
            assert entered == ['the current one']
    assert all(step.recorded_shapes for step in steps)
    assert all(expected == came for expected, came in seen)
    assert {came for _, came in seen} == set(devices)


@torch.inference_mode()
def test_sizes_and_batches_in_turn_keep_few_recordings_and_every_state(any_speed):
    model = tiny_smoothdino()
    shapes = [(1, 42), (2, 42), (1, 56), (3, 42), (2, 56), (1, 70)]
    assert len(shapes) > GRAPHS_KEPT
    captures = []

    def capture(*args):
        recorded = on_cpu(*args)
        captures.append(weakref.ref(recorded))
        return recorded

    step = GraphedStep(model, CPU, capture)
    rides = [ride(12, cameras=cameras, height=height) for cameras, height in shapes]
    states, expected_states = [None] * len(shapes), [None] * len(shapes)
    for t in range(12):
        for i, frames in enumerate(rides):
            came = step(frames[t], states[i])
            expected = model(frames[t], expected_states[i])
            assert_equal(came, expected)
            states[i], expected_states[i] = came[1], expected[1]
            assert len(step.recorded_shapes) <= GRAPHS_KEPT
    assert sum(one() is not None for one in captures) <= GRAPHS_KEPT
