# SPDX-License-Identifier: Apache-2.0
"""What an NVIDIA GPU alone can show of the network; `make gpu` runs it."""

import threading
import time

import numpy as np
import pytest
import torch

from smoothdino_model.engines.choice import Prepared, arithmetic, chosen_precision, make_engine
from smoothdino_model.engines.cuda_graph import GRAPHS_KEPT, TIMES_SEEN, GraphedStep
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.weights.checkpoint import load_model
from support.library_depth import batch, relative_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs an NVIDIA GPU: make gpu'),
]
CPU, GPU = torch.device('cpu'), torch.device('cuda', 0)
PERIOD_NS = 33_333_333
N_FRAMES = 200
SIZE = (240, 320)


def ride(n: int, seed: int = 1_000_000, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    room = SampleRoom(seed, height=size[0], width=size[1])
    return [room.frame(i).rgb for i in range(n)]


@pytest.fixture(scope='module')
def frames() -> list[np.ndarray]:
    return ride(N_FRAMES)


def engine(precision: str, device: torch.device = GPU) -> Prepared:
    model = load_model('smoothdino-small')
    return make_engine(model, engine='torch', device=device, precision=precision, temporal=True)


def pipeline() -> DepthPipeline:
    return DepthPipeline(load_model('smoothdino-small'), device=GPU, precision='fp32')


def recorded(prepared: Prepared) -> list[tuple[int, ...]]:
    assert isinstance(prepared.step, GraphedStep)
    return prepared.step.recorded_shapes


@torch.inference_mode()
def test_fp32_is_the_cpus_depth_eager_and_as_a_graph(frames):
    by_cpu, by_gpu = engine('fp32', CPU), engine('fp32')
    on_cpu = eager = graph = None
    for rgb in frames:
        expected_m, on_cpu = by_cpu(batch(rgb), on_cpu)
        uploaded = batch(rgb).to(GPU)
        with arithmetic('fp32'):
            eager_m, eager = by_gpu.model(uploaded, eager)
        graph_m, graph = by_gpu(uploaded, graph)
        assert relative_error(eager_m.cpu(), expected_m) < 1e-4
        assert relative_error(graph_m.cpu(), expected_m) < 1e-4
    assert recorded(by_gpu) == [(1, *SIZE, 3)]


@torch.inference_mode()
def test_depth_and_states_that_somebody_keeps_change_under_nobody(frames):
    by_gpu = engine('fp32')
    uploaded = [batch(rgb).to(GPU) for rgb in frames[:12]]
    kept, state = [], None
    for rgb in uploaded:
        depth_m, state = by_gpu(rgb, state)
        kept.append((depth_m, state, [one.clone() for one in (depth_m, *state.tensors)]))
    assert recorded(by_gpu)
    again_m, _ = by_gpu(uploaded[8], kept[7][1])
    assert relative_error(again_m.cpu(), kept[8][0].cpu()) < 1e-4
    for depth_m, state, as_given in kept:
        for one, before in zip((depth_m, *state.tensors), as_given, strict=True):
            assert torch.equal(one, before)


@torch.inference_mode()
def test_half_precision_stays_within_a_hundredth(frames):
    half, exact = engine(chosen_precision('auto', GPU, 'torch')), engine('fp32')
    half_state = exact_state = None
    for rgb in frames:
        uploaded = batch(rgb).to(GPU)
        depth_m, half_state = half(uploaded, half_state)
        expected_m, exact_state = exact(uploaded, exact_state)
        assert 0 < float((depth_m / expected_m - 1).abs().mean()) < 0.01
    assert recorded(half)


@torch.inference_mode()
def test_a_step_waits_for_nothing(frames):
    """A device that is asked for a value cannot be recorded, and stands still meanwhile."""
    by_gpu = engine('fp32')
    uploaded = [batch(rgb).to(GPU) for rgb in frames[:3]]
    _, state = by_gpu.model(uploaded[0], None)
    by_gpu.model(uploaded[1], state)
    for _ in range(TIMES_SEEN):
        _, replayed = by_gpu(uploaded[0], None)
    assert recorded(by_gpu)
    torch.cuda.set_sync_debug_mode('error')
    try:
        _, state = by_gpu.model(uploaded[0], None)
        by_gpu.model(uploaded[2], state)
        for given in (None, state, replayed):  # of any origin
            by_gpu(uploaded[2], given)
    finally:
        torch.cuda.set_sync_debug_mode('default')


def test_cameras_that_join_one_after_the_other_see_what_each_sees_alone():
    clips = {f'camera {i}': ride(16, seed=i) for i in range(4)}
    together, alone = pipeline(), {name: pipeline() for name in clips}
    for i in range(16):
        joined = {
            name: CameraFrame(clip[i], i * PERIOD_NS)
            for n, (name, clip) in enumerate(clips.items())
            if i >= 2 * n
        }
        for name, result in together.step(joined).items():
            expected = alone[name].step({name: joined[name]})[name]
            assert result.reset == expected.reset
            came_m, expected_m = map(torch.from_numpy, (result.depth_m, expected.depth_m))
            assert relative_error(came_m, expected_m) < 1e-3
            assert result.depth_m.base is None


def test_the_first_frame_of_what_is_warm_takes_at_most_twice_a_later_one(frames):
    warm = pipeline()
    assert warm.warm_up({'': CameraFrame(frames[0], 0)})
    seconds = []
    for i, rgb in enumerate(frames[:50]):
        start_s = time.perf_counter()
        warm.step({'': CameraFrame(rgb, i * PERIOD_NS)})
        seconds.append(time.perf_counter() - start_s)
    assert seconds[0] <= 2 * np.median(seconds[1:])


@torch.inference_mode()
def test_memory_is_flat_while_sizes_change():
    by_gpu = engine('fp32')
    pictures = [
        batch(ride(1, size=(112 + 14 * i, 154))[0]).to(GPU) for i in range(3 * GRAPHS_KEPT)
    ]
    held = []
    for _ in range(8 * TIMES_SEEN):
        for uploaded in pictures:
            by_gpu(uploaded, None)
        assert len(recorded(by_gpu)) <= GRAPHS_KEPT
        torch.cuda.synchronize(GPU)
        held.append(torch.cuda.memory_reserved(GPU))
    half = len(held) // 2
    assert max(held[half:]) <= 1.1 * max(held[:half])


def test_memory_that_runs_out_costs_one_frame(frames):
    """The graphs and what is cached are given up, the state stays, and the stream goes on."""
    scarce, plenty = pipeline(), pipeline()
    expected_m = [
        plenty.step({'': CameraFrame(rgb, i * PERIOD_NS)})[''].depth_m
        for i, rgb in enumerate(frames[:12])
    ]
    plenty.close()
    for i, rgb in enumerate(frames[:12]):
        if i == 8:
            torch.cuda.empty_cache()
            rest = torch.cuda.mem_get_info(GPU)[0] - 2**29
            hoard = torch.empty(rest, dtype=torch.uint8, device=GPU)
            huge = np.zeros((8000, 8000, 3), np.uint8)  # 768 MB as float32
            with pytest.raises(torch.OutOfMemoryError):
                scarce.step({'': CameraFrame(huge, i * PERIOD_NS - 1)})
        result = scarce.step({'': CameraFrame(rgb, i * PERIOD_NS)})['']
        assert (result.reset is None) == (i > 0)
        came_m = torch.from_numpy(result.depth_m)
        assert relative_error(came_m, torch.from_numpy(expected_m[i])) < 1e-3
    del hoard
    torch.cuda.empty_cache()


@torch.inference_mode()
def test_what_cannot_be_recorded_is_answered_and_harms_no_later_recording(frames):
    def asking(rgb, state):
        depth_m = rgb.float().mean(dim=3)
        return depth_m + 0 * depth_m.max().item(), None  # no recording may ask the device

    step = GraphedStep(asking, GPU)
    uploaded = batch(frames[0]).to(GPU)
    for _ in range(TIMES_SEEN + 3):
        assert torch.equal(step(uploaded, None)[0], uploaded.float().mean(dim=3))
    assert step.recorded_shapes == []
    torch.cuda.empty_cache()
    after = engine('fp32')
    for _ in range(TIMES_SEEN):
        after(uploaded, None)
    assert recorded(after)


@torch.inference_mode()
def test_another_thread_may_ask_for_the_memory_meanwhile(frames):
    """As the diagnostics of the node do, once a second."""
    ended, asked = threading.Event(), []

    def ask():
        while not ended.is_set():
            asked.append((torch.cuda.memory_reserved(GPU), torch.cuda.mem_get_info(GPU)))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        by_gpu, uploaded = engine('fp32'), batch(frames[0]).to(GPU)
        for _ in range(TIMES_SEEN):
            by_gpu(uploaded, None)
    finally:
        ended.set()
        thread.join()
    assert asked
    assert recorded(by_gpu)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
@torch.inference_mode()
def test_a_second_gpu_sees_what_the_first_one_sees(frames):
    devices = [GPU, torch.device('cuda', 1)]
    engines = [engine('fp32', device) for device in devices]
    states = [None, None]
    for rgb in frames[:20]:
        depths_m = []
        for i, device in enumerate(devices):
            depth_m, states[i] = engines[i](batch(rgb).to(device), states[i])
            assert depth_m.device == device
            depths_m.append(depth_m.cpu())
        assert relative_error(*depths_m) < 1e-4
    assert all(map(recorded, engines))
