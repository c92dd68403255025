# SPDX-License-Identifier: Apache-2.0
"""Streams: pieces equal the whole, cameras are apart, settings are kept or refused."""

import itertools
import logging
import weakref
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
from smoothdino_model.pipeline import DepthPipeline
from smoothdino_model.weights.errors import CheckpointError
from support.streams import PERIOD_NS, as_batch, assert_close, clip, pipeline, same, steps
from support.tiny_networks import tiny_dpt, tiny_smoothdino

# --- streams


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


def test_a_camera_that_pauses_keeps_no_other_cameras_state_alive():
    pipe = pipeline()
    a, b = (clip(1, seed=seed)[0] for seed in range(2))
    pipe.step({'a': a, 'b': b})
    batch = weakref.ref(pipe._memories['a'].state.batch)
    assert batch() is pipe._memories['b'].state.batch
    pipe.step({'a': a})
    assert batch() is None
    assert len(pipe._memories['b'].state.batch.valid) == 1


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


# --- settings


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
