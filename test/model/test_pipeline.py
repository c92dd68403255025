# SPDX-License-Identifier: Apache-2.0
"""Streams: pieces equal the whole, cameras are apart, a reset is a first frame."""

import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

import smoothdino_model.network.smoothdino as model_module
from smoothdino_model.engines import cuda_graph
from smoothdino_model.engines.cuda_graph import TIMES_SEEN, GraphedStep
from smoothdino_model.engines.names import DeviceError
from smoothdino_model.network.adapter import AdapterConfig, TemporalAdapter
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.phase_correlation import windowed_spectrum
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.network.temporal_state import TemporalState
from smoothdino_model.pipeline import CameraFrame, DepthPipeline, DepthResult
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.weights.errors import CheckpointError
from support.tiny_networks import tiny_dpt, tiny_smoothdino

PERIOD_NS = 33_333_333


def clip(n_frames: int, seed: int = 0, *, height: int = 75, width: int = 98) -> list[CameraFrame]:
    """A ride through a room, 30 frames per second; 75 rows are not whole patches."""
    room = SampleRoom(seed, height=height, width=width)
    return [
        CameraFrame(room.frame(i).rgb, stamp_ns=10**18 + i * PERIOD_NS) for i in range(n_frames)
    ]


def pipeline(model: SmoothDino | None = None, **settings) -> DepthPipeline:
    """On the CPU in full precision, which ``auto`` would leave where it multiplies bf16."""
    settings = {'device': 'cpu', 'precision': 'fp32'} | settings
    return DepthPipeline(model or tiny_smoothdino(), **settings)


def steps(pipe: DepthPipeline, frames: list[CameraFrame], camera: str = 'a') -> list[DepthResult]:
    return [pipe.step({camera: frame})[camera] for frame in frames]


def as_batch(*frames: CameraFrame) -> torch.Tensor:
    return torch.from_numpy(np.stack([frame.rgb for frame in frames]))


def same(one: DepthResult, other: DepthResult) -> bool:
    return (
        np.array_equal(one.depth_m, other.depth_m)
        and one.shift_px == other.shift_px
        and one.confidence == other.confidence
    )


def assert_close(one: DepthResult, other: DepthResult) -> None:
    np.testing.assert_allclose(one.depth_m, other.depth_m, atol=1e-4)
    np.testing.assert_allclose(one.shift_px, other.shift_px, atol=1e-2)
    assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


# --- the model


@torch.inference_mode()
def test_a_stream_encoded_at_once_is_the_stream_frame_by_frame():
    model = tiny_smoothdino()
    frames = clip(5)
    whole = model.see(as_batch(*frames))
    state = state_at_once = None
    for i, frame in enumerate(frames):
        depth_m, state = model(as_batch(frame), state)
        adapted, state_at_once = model.adapt(whole.of(slice(i, i + 1)), state_at_once)
        torch.testing.assert_close(model.backbone.decode(adapted), depth_m, atol=1e-4, rtol=1e-4)
        if i:  # the comparison is worth something
            assert not torch.allclose(depth_m, model.backbone(as_batch(frame)), atol=1e-2)


@torch.inference_mode()
def test_a_state_is_not_changed_by_its_use():
    model = tiny_smoothdino()
    first, second, third = clip(3)
    _, state = model(as_batch(first))
    model(as_batch(third), state)
    depth_m, _ = model(as_batch(second), state)
    _, fresh_state = model(as_batch(first))
    assert torch.equal(depth_m, model(as_batch(second), fresh_state)[0])


@pytest.mark.parametrize('frames', [1, 2])
def test_an_adapter_remembers_as_many_frames_as_its_memory_has(frames):
    first, second, third = clip(3)
    pipe = pipeline(tiny_smoothdino(memory=frames))
    whole = steps(pipe, [first, second, third])[2]
    pipe.reset()
    without_first = steps(pipe, [second, third])[1]
    assert same(whole, without_first) == (frames == 1)


@torch.inference_mode()
def test_states_split_and_join():
    model = tiny_smoothdino()
    a, b = clip(2), clip(2, seed=1)
    _, state = model(as_batch(a[0], b[0]))
    parts = state.split()
    joined = TemporalState.join(parts)
    assert torch.equal(
        model(as_batch(a[1], b[1]), joined)[0], model(as_batch(a[1], b[1]), state)[0]
    )
    assert TemporalState.join([None, None]) is None
    mixed = TemporalState.join([None, parts[1]])
    assert mixed.valid.tolist() == [False, True]


@torch.inference_mode()
def test_the_measured_shift_is_in_pixels_of_the_frame():
    """Also where the network sees the frame at half its size."""
    whole = SampleRoom(0, height=300, width=400, clean=True).frame(0).rgb
    first, second = (whole[10:250, 10:330], whole[6:246, 2:322])  # content moves (8, 4)
    for input_height in (0, 112):
        model = tiny_smoothdino()
        model.backbone.input_height = input_height
        _, state = model(torch.from_numpy(first.copy())[None])
        assert state.shift_px.tolist() == [[0, 0]]
        assert state.confidence.tolist() == [0]
        _, state = model(torch.from_numpy(second.copy())[None], state)
        np.testing.assert_allclose(state.shift_px[0], (8, 4), atol=0.2)
        assert state.confidence[0] > 0.5


@torch.inference_mode()
def test_a_state_of_other_frames_is_refused():
    model = tiny_smoothdino()
    _, state = model(as_batch(clip(1)[0]))
    with pytest.raises(ValueError, match=r'expected frames like .* got 1 of \(70, 98\)'):
        model(as_batch(clip(1, height=70)[0]), state)
    with pytest.raises(ValueError, match='expected frames like'):
        model(as_batch(*clip(2)), state)


@torch.inference_mode()
def test_without_an_adapter_it_is_the_backbone():
    model = SmoothDino(DepthBackbone(tiny_dpt()))
    rgb = as_batch(clip(1)[0])
    depth_m, state = model(rgb)
    assert state is None
    assert torch.equal(depth_m, model.backbone(rgb))


# --- the pipeline: streams


@torch.inference_mode()
def test_the_pipeline_is_the_model_with_its_state_kept():
    frames = clip(6)
    model = tiny_smoothdino()
    state = None
    for i, (frame, result) in enumerate(zip(frames, steps(pipeline(), frames), strict=True)):
        depth_m, state = model(as_batch(frame), state)
        assert np.array_equal(result.depth_m, depth_m[0])
        assert result.depth_m.dtype == np.float32
        assert result.shift_px == tuple(state.shift_px[0].tolist())
        assert result.confidence == float(state.confidence[0])
        assert result.reset == (None if i else 'first frame')


def test_a_stream_in_pieces_is_the_stream_whole():
    """Whatever comes between: another camera, another size, a reset of another, a wrong frame."""
    frames, others = clip(6), clip(6, seed=1)
    small = clip(1, height=28, width=42)[0]
    whole = steps(pipeline(), frames)
    pipe = pipeline()
    pieces = steps(pipe, frames[:2])
    steps(pipe, others, 'b')
    pieces += steps(pipe, frames[2:4])
    steps(pipe, [small], 'b')
    pipe.reset('b')
    with pytest.raises(ValueError, match='camera'):
        pipe.step({'a': replace(frames[4], rgb=frames[4].rgb.astype(float))})
    pieces += steps(pipe, frames[4:])
    assert all(same(*pair) for pair in zip(whole, pieces, strict=True))


def test_the_previous_frame_counts():
    frames = clip(2)
    alone = steps(pipeline(), frames[1:])[0]
    after = steps(pipeline(), frames)[1]
    assert not np.allclose(alone.depth_m, after.depth_m, atol=1e-2)


def test_cameras_do_not_influence_each_other():
    clips = {f'camera {seed}': clip(4, seed=seed) for seed in range(3)}
    alone = {camera: steps(pipeline(), frames, camera) for camera, frames in clips.items()}
    pipe = pipeline()
    for i in range(4):
        together = pipe.step({camera: frames[i] for camera, frames in clips.items()})
        assert list(together) == list(clips)
        for camera, result in together.items():
            assert_close(result, alone[camera][i])


def test_first_frames_and_later_ones_mix_in_a_batch():
    early, late = clip(5), clip(5, seed=1)
    early_alone, late_alone = steps(pipeline(), early), steps(pipeline(), late[3:])
    pipe = pipeline()
    came = steps(pipe, early[:3], 'early')
    for i in (3, 4):
        results = pipe.step({'late': late[i], 'early': early[i]})
        came.append(results['early'])
        assert_close(results['late'], late_alone[i - 3])
        assert results['late'].reset == ('first frame' if i == 3 else None)
    for result, expected in zip(came, early_alone, strict=True):
        assert_close(result, expected)


def test_sizes_differ_in_one_step():
    clips = {
        'wide': clip(3, height=42, width=98),
        'tall': clip(3, seed=1, height=90, width=50),
        'wide too': clip(3, seed=2, height=42, width=98),
    }
    alone = {camera: steps(pipeline(), frames, camera) for camera, frames in clips.items()}
    pipe = pipeline()
    for i in range(3):
        results = pipe.step({camera: frames[i] for camera, frames in clips.items()})
        assert list(results) == list(clips)
        for camera, result in results.items():
            assert result.depth_m.shape == clips[camera][i].rgb.shape[:2]
            assert_close(result, alone[camera][i])


def test_a_step_without_frames_gives_nothing():
    assert pipeline().step({}) == {}


def test_every_frame_is_encoded_and_transformed_once(monkeypatch):
    encoded, transformed = [], []

    def counted(gray):
        transformed.append(len(gray))
        return windowed_spectrum(gray)

    monkeypatch.setattr(model_module, 'windowed_spectrum', counted)
    pipe = pipeline()
    pipe.model.backbone.network.backbone.register_forward_hook(
        lambda module, args, output: encoded.append(len(args[0]))
    )
    decoded = []
    pipe.model.backbone.network.head.register_forward_hook(
        lambda module, args, output: decoded.append(len(output))
    )
    clips = {'a': clip(4), 'b': clip(4, seed=1)}
    for i in range(4):
        pipe.step({camera: frames[i] for camera, frames in clips.items()})
    assert encoded == transformed == decoded == [2] * 4


@pytest.mark.slow
def test_a_still_scene_does_not_drift():
    frame = clip(1, height=42, width=56)[0]
    pipe = pipeline()
    depths_m = np.stack(
        [pipe.step({'a': replace(frame, stamp_ns=i * PERIOD_NS)})['a'].depth_m for i in range(200)]
    )
    steady = depths_m[20:]
    assert np.isfinite(steady).all()
    assert np.abs(steady[-1] - steady[0]).max() < 1e-2 * steady.mean()
    assert np.ptp(steady.mean(axis=(1, 2))) < 1e-3 * steady.mean()


# --- the pipeline: resets


def later(frame: CameraFrame, **changes) -> CameraFrame:
    return replace(frame, **changes)


RESETS = {
    'stamp back': (
        lambda frame: later(frame, stamp_ns=frame.stamp_ns - 10 * PERIOD_NS),
        'stamp went back by 0.300 s',
    ),
    'gap': (
        lambda frame: later(frame, stamp_ns=frame.stamp_ns + 2 * 10**9),
        'gap of 2.033 s between frames',
    ),
    'gap before skipped frames': (
        lambda frame: later(
            frame,
            stamp_ns=frame.stamp_ns + 1_600_000_000,
            skipped_ns=(frame.stamp_ns + 1_500_000_000, frame.stamp_ns + 1_550_000_000),
        ),
        'gap of 1.533 s between frames',
    ),
    'stamp back among skipped frames': (
        lambda frame: later(frame, skipped_ns=(frame.stamp_ns - 10**9,)),
        'stamp went back by 0.967 s',
    ),
    'frame_id': (
        lambda frame: later(frame, frame_id='rear'),
        "frame_id changed from '' to 'rear'",
    ),
    'size': (
        lambda frame: later(frame, rgb=np.ascontiguousarray(frame.rgb[:70, :84])),
        'size changed from 98x75 to 84x70',
    ),
    'rotated': (
        lambda frame: later(frame, rgb=np.ascontiguousarray(frame.rgb.swapaxes(0, 1))),
        'size changed from 98x75 to 75x98',
    ),
}


@pytest.mark.parametrize(('change', 'reason'), RESETS.values(), ids=RESETS.keys())
def test_after_a_break_a_frame_is_a_first_frame(change, reason):
    frames = clip(4)
    changed = change(frames[3])
    pipe = pipeline()
    before = steps(pipe, frames[:3])
    assert [result.reset for result in before] == ['first frame', None, None]
    came = steps(pipe, [changed])[0]
    first = steps(pipeline(), [changed])[0]
    assert came.reset == reason
    assert same(came, first)
    assert came.shift_px == (0, 0)
    assert came.confidence == 0
    # And from there the stream goes on.
    following = later(changed, stamp_ns=changed.stamp_ns + PERIOD_NS, skipped_ns=())
    assert steps(pipe, [following])[0].reset is None


def test_a_break_of_one_camera_leaves_the_others_alone():
    a, b = clip(4), clip(4, seed=1)
    alone = steps(pipeline(), b)
    pipe = pipeline()
    for i in range(4):
        frame = later(a[i], frame_id='rear' if i == 3 else '')
        results = pipe.step({'a': frame, 'b': b[i]})
        assert_close(results['b'], alone[i])
        assert results['b'].reset == ('first frame' if i == 0 else None)
    assert results['a'].reset == "frame_id changed from '' to 'rear'"
    assert_close(results['a'], steps(pipeline(), [frame])[0])


def test_frames_that_a_slow_machine_skips_are_no_gap():
    first, second = clip(2)
    skipped_ns = tuple(first.stamp_ns + i * 900_000_000 for i in (1, 2, 3))
    late = later(second, stamp_ns=first.stamp_ns + 3_400_000_000)
    pipe = pipeline()
    results = steps(pipe, [first, later(late, skipped_ns=skipped_ns)])
    assert results[1].reset is None
    assert steps(pipeline(), [first, late])[1].reset == 'gap of 3.400 s between frames'
    holed = later(late, skipped_ns=skipped_ns[:1])
    assert steps(pipeline(), [first, holed])[1].reset == 'gap of 2.500 s between frames'


def test_max_gap_is_a_limit_that_can_be_set():
    first, second = clip(2)
    at_limit = later(second, stamp_ns=first.stamp_ns + 10**9)
    assert steps(pipeline(), [first, at_limit])[1].reset is None
    pipe = pipeline()
    pipe.max_gap_s = 0.5
    assert steps(pipe, [first, at_limit])[1].reset == 'gap of 1.000 s between frames'


def test_a_repeated_stamp_is_no_break():
    first, second = clip(2)
    assert steps(pipeline(), [first, later(second, stamp_ns=first.stamp_ns)])[1].reset is None


@pytest.mark.parametrize('camera', ['a', None])
def test_a_reset_can_be_asked_for(camera):
    frames = clip(4)
    pipe = pipeline()
    steps(pipe, frames[:2])
    steps(pipe, frames[:2], 'b')
    pipe.reset(camera, 'deactivated')
    results = pipe.step({'a': frames[2], 'b': frames[2]})
    assert results['a'].reset == 'deactivated'
    assert_close(results['a'], steps(pipeline(), frames[2:3])[0])
    assert results['b'].reset == ('deactivated' if camera is None else None)
    assert pipe.step({'a': frames[3]})['a'].reset is None


def test_a_reset_of_an_unknown_camera_is_nothing():
    pipe = pipeline()
    pipe.reset('nobody')
    assert steps(pipe, clip(1), 'nobody')[0].reset == 'first frame'


WRONG_IMAGES = {
    'float': np.zeros((75, 98, 3), np.float32),
    'grey': np.zeros((75, 98), np.uint8),
    'four channels': np.zeros((75, 98, 4), np.uint8),
    'empty': np.zeros((0, 98, 3), np.uint8),
}


@pytest.mark.parametrize('rgb', WRONG_IMAGES.values(), ids=WRONG_IMAGES.keys())
def test_a_wrong_image_is_refused_and_changes_nothing(rgb):
    a, b = clip(4), clip(4, seed=1)
    whole = steps(pipeline(), a)
    pipe = pipeline()
    came = steps(pipe, a[:2])
    with pytest.raises(ValueError, match=r"camera 'b': expected RGB uint8 of shape \(H, W, 3\)"):
        pipe.step({'a': a[2], 'b': later(b[2], rgb=rgb)})
    came += steps(pipe, a[2:])
    assert all(same(*pair) for pair in zip(whole, came, strict=True))


def test_a_step_that_fails_within_changes_nothing():
    """Not even for the cameras of another size that were done already, or for an asked reset."""
    a, b = clip(4), clip(4, seed=1, height=42, width=56)
    whole = steps(pipeline(), a)
    pipe = pipeline()
    steps(pipe, a[:2])
    steps(pipe, b[:2], 'b')
    pipe.reset('b')
    calls = []

    def fail(module, args):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError('out of memory')

    hook = pipe.model.backbone.network.head.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        pipe.step({'a': a[2], 'b': b[2]})
    hook.remove()
    assert same(steps(pipe, a[2:3])[0], whole[2])
    assert steps(pipe, b[2:3], 'b')[0].reset == 'requested'


# --- the pipeline: settings


def test_not_temporal_is_the_plain_backbone():
    frames = clip(3)
    pipe = pipeline(temporal=False)
    assert pipe.temporal is False
    backbone = tiny_smoothdino().backbone
    for frame, result in zip(frames, steps(pipe, frames), strict=True):
        with torch.inference_mode():
            assert np.array_equal(result.depth_m, backbone(as_batch(frame))[0])
        assert result.shift_px == (0, 0)
        assert result.confidence == 0


def test_a_model_without_adapter_is_not_temporal():
    pipe = pipeline(SmoothDino(DepthBackbone(tiny_dpt())))
    assert pipe.temporal is False
    assert len(steps(pipe, clip(2))) == 2


def test_an_untrained_adapter_without_memory_changes_nothing():
    backbone = DepthBackbone(tiny_dpt())
    pipe = pipeline(SmoothDino(backbone, TemporalAdapter(AdapterConfig(24, memory=0))))
    plain = steps(pipeline(temporal=False), clip(3))
    for result, expected in zip(steps(pipe, clip(3)), plain, strict=True):
        assert np.array_equal(result.depth_m, expected.depth_m)


def test_from_pretrained_loads_model_and_adapter(tiny_model_dir):
    frames = clip(3)
    came = DepthPipeline.from_pretrained(tiny_model_dir, device='cpu', precision='fp32')
    assert came.temporal is True
    assert (came.device.type, came.precision) == ('cpu', 'fp32')
    expected = steps(pipeline(), frames)
    assert all(same(*pair) for pair in zip(steps(came, frames), expected, strict=True))
    plain = DepthPipeline.from_pretrained(tiny_model_dir, adapter='none', memory=0, device='cpu')
    assert not plain.temporal


@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        ({}, 'steadied by an adapter and the features of the last 4 frames'),
        ({'adapter': 'none'}, 'steadied by the mean over the features of the last 2 frames'),
        ({'adapter': 'none', 'memory': 3}, 'steadied by the mean over the features of the last 3'),
        ({'adapter': 'none', 'memory': 0}, 'every frame stands for itself'),
        ({'temporal': False}, 'every frame stands for itself'),
    ],
    ids=str,
)
def test_what_steadies_depth_is_said_in_one_line(tiny_model_dir, settings, said, caplog):
    caplog.set_level(logging.INFO, 'smoothdino_model.pipeline')
    DepthPipeline.from_pretrained(tiny_model_dir, device='cpu', **settings)
    lines = [r.message for r in caplog.records if 'stead' in r.message or 'stands' in r.message]
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_half_precision_streams(precision):
    whole = steps(pipeline(), clip(3))
    pipe = pipeline(precision=precision)
    assert pipe.precision == precision
    for result, expected in zip(steps(pipe, clip(3)), whole, strict=True):
        assert result.depth_m.dtype == np.float32
        error_m = np.abs(result.depth_m - expected.depth_m).mean()
        assert 0 < error_m < 0.05 * expected.depth_m.mean()
        np.testing.assert_allclose(result.shift_px, expected.shift_px, atol=0.01)


@pytest.mark.parametrize('device', ['cuda:77', 'abacus', 'cpu:x'])
def test_an_unknown_device_is_refused_in_words(device):
    with pytest.raises(DeviceError, match=f"^device '{device}' is not available here .*'auto'"):
        DepthPipeline(tiny_smoothdino(), device=device)


def test_an_unknown_precision_is_refused_in_words():
    with pytest.raises(DeviceError, match=r"^precision: expected 'auto', 'fp32'.* got 'fp8'"):
        pipeline(precision='fp8')


def test_device_and_precision_are_checked_before_the_weights(tmp_path):
    with pytest.raises(DeviceError):
        DepthPipeline.from_pretrained(tmp_path / 'absent', device='abacus')
    with pytest.raises(CheckpointError):
        DepthPipeline.from_pretrained(tmp_path / 'absent', device='cpu')


def test_the_weights_of_a_pipeline_ask_for_no_gradient():
    assert not any(parameter.requires_grad for parameter in pipeline().model.parameters())
    assert not pipeline().model.training


# --- made ready


def test_on_a_cpu_there_is_nothing_to_make_ready():
    assert pipeline().warm_up({'a': clip(1)[0]}) is False


def test_a_pipeline_that_was_made_ready_records_nothing_in_its_first_frames(caplog, monkeypatch):
    """Each size and number of cameras once; and no camera has a previous frame by it."""
    caplog.set_level(logging.INFO, 'smoothdino_model.pipeline')
    seconds = itertools.cycle([2.0, 1.0])  # a recording on the CPU is no faster
    monkeypatch.setattr(cuda_graph, '_median_s', lambda step, rgb: next(seconds))
    recorded = []

    def capture(forward, rgb, beside):
        recorded.append(tuple(rgb.shape))
        return forward

    plain, ready = pipeline(), pipeline()
    ready._network = GraphedStep(ready._network, ready.device, capture)
    ready._n_slow_steps = TIMES_SEEN
    frames = clip(6)
    assert ready.warm_up({'a': frames[0]})
    assert not ready.warm_up({'b': frames[1]})
    assert ready.warm_up({'a': frames[0], 'b': frames[1]})
    assert 'warming up for 2 frames of 98x75 at a time' in caplog.text
    assert recorded == [(1, 75, 98, 3), (2, 75, 98, 3)]
    for came, expected in zip(steps(ready, frames), steps(plain, frames), strict=True):
        assert came.reset == expected.reset
        assert same(came, expected)
    assert len(recorded) == 2


def test_closed_is_closed():
    pipe = pipeline()
    steps(pipe, clip(1))
    pipe.close()
    with pytest.raises(RuntimeError):
        steps(pipe, clip(1))
