# SPDX-License-Identifier: Apache-2.0
"""Whatever runs the network, the depth is the library's own; and what is chosen is said."""

import logging
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from smoothdino_model.cli.main import main
from smoothdino_model.engines.bf16_attention import attend, with_written_scores
from smoothdino_model.engines.choice import (
    chosen_engine,
    chosen_precision,
    cpu_computes_in_bf16,
    dtype_of,
    make_engine,
)
from smoothdino_model.engines.names import DeviceError
from smoothdino_model.engines.winograd import WinogradConv2d, with_winograd
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.memory import FRAMES
from smoothdino_model.network.neck import fused_maps
from smoothdino_model.network.temporal_state import TemporalState
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.weights.checkpoint import load_model
from support.library_depth import assert_close, batch, by_the_library, relative_error
from support.made_recordings import pictures, write_folder
from support.tiny_networks import tiny_depth_anything, tiny_dpt, tiny_smoothdino

CPU = torch.device('cpu')
SOAK = bool(os.environ.get('SMOOTHDINO_SOAK'))
N_FRAMES = 200 if SOAK else 6
LOG = 'smoothdino_model.pipeline'


def ride(nyu_root: Path | None) -> list[np.ndarray]:
    if nyu_root is None:
        room = SampleRoom(1_000_000, height=240, width=320)
        return [room.frame(i).rgb for i in range(N_FRAMES)]
    folder = nyu_root / 'nyu2_train' / 'office_0011_out'
    paths = sorted(folder.glob('*.jpg'), key=lambda path: int(path.stem))[:N_FRAMES]
    return [cv2.imread(str(path))[..., ::-1] for path in paths]


@torch.inference_mode()
def assert_as_the_library(frames: list[np.ndarray]) -> None:
    plain = load_model('smoothdino-small')
    engine = make_engine(
        load_model('smoothdino-small'), engine='torch', device=CPU, precision='fp32', temporal=True
    )
    state = expected_state = None
    for rgb in map(batch, frames):
        depth_m, state = engine(rgb, state)
        expected_m, expected_state = by_the_library(plain, rgb, expected_state)
        assert expected_m.min() > 0.1
        assert expected_m.std() > 0.1
        assert relative_error(depth_m, expected_m) < 1e-4
        for came, expected in zip(state.tensors, expected_state.tensors, strict=True):
            assert_close(came, expected)
    # The previous frames count: the state has been compared in earnest.
    assert relative_error(engine(rgb, None)[0], depth_m) > 1e-2


@pytest.mark.slow
def test_fp32_is_the_librarys_own_depth_over_a_stream_of_a_room():
    assert_as_the_library(ride(None))


@pytest.mark.slow
def test_fp32_is_the_librarys_own_depth_over_a_stream_of_nyu(nyu_root):
    assert_as_the_library(ride(nyu_root))


# --- what is chosen


def test_auto_is_torch_in_what_the_cpu_computes_in_and_the_log_says_so(caplog, monkeypatch):
    monkeypatch.setattr('smoothdino_model.engines.choice.has_openvino', lambda: False)
    caplog.set_level(logging.INFO, LOG)
    pipeline = DepthPipeline(tiny_smoothdino(), device='cpu')
    expected = 'bf16' if cpu_computes_in_bf16() else 'fp32'
    assert (pipeline.engine, pipeline.precision) == ('torch', expected)
    assert f'depth by torch on cpu in {expected}' in caplog.text
    assert pipeline.model.backbone.dtype == dtype_of(expected)


@pytest.mark.slow
@torch.inference_mode()
def test_half_precision_on_request_is_close(caplog):
    caplog.set_level(logging.INFO, LOG)
    frames = [SampleRoom(1_000_000, height=112, width=154).frame(i).rgb for i in range(2)]
    depths_m = {}
    for precision in ('fp32', 'bf16'):
        model = load_model('smoothdino-small')
        pipe = DepthPipeline(model, engine='torch', device='cpu', precision=precision)
        assert f'depth by torch on cpu in {precision}' in caplog.text
        results = [
            pipe.step({'': CameraFrame(rgb, i * 33_000_000)})[''] for i, rgb in enumerate(frames)
        ]
        depths_m[precision] = np.stack([result.depth_m for result in results])
    error = np.abs(depths_m['bf16'] / depths_m['fp32'] - 1)
    assert 0 < error.mean() < 0.01


@pytest.mark.slow
@torch.inference_mode()
def test_half_precision_does_not_drift_from_full_over_a_stream_of_nyu(nyu_root):
    engines = {
        precision: make_engine(
            load_model('smoothdino-small'),
            engine='torch',
            device=CPU,
            precision=precision,
            temporal=True,
        )
        for precision in ('fp32', 'bf16')
    }
    states: dict[str, TemporalState | None] = dict.fromkeys(engines)
    abs_rel, of_state = [], []
    for rgb in map(batch, ride(nyu_root)):
        depth_m = {}
        for precision, engine in engines.items():
            came, states[precision] = engine(rgb, states[precision])
            depth_m[precision] = came.float()
        abs_rel.append(float((depth_m['bf16'] / depth_m['fp32'] - 1).abs().mean()))
        of_state.append(state_error(states['bf16'], states['fp32']))
    assert min(abs_rel) > 0
    assert max(abs_rel) < 0.01
    assert max(of_state) < 0.02
    whole = abs_rel[FRAMES:]  # since the memory has been full
    n = len(whole) // 2
    assert np.mean(whole[-n:]) < 2 * np.mean(whole[:n])  # few frames, of other views


def state_error(came: TemporalState, expected: TemporalState) -> float:
    """Give the largest mean error of the state's tensors, as a part of their mean size."""
    errors = []
    for one, other in zip(came.tensors, expected.tensors, strict=True):
        if one.is_floating_point():
            errors.append(float((one.float() - other).abs().mean() / other.abs().mean()))
    return max(errors)


@pytest.mark.parametrize(
    ('engine', 'said'),
    [
        ('steam', "expected one of 'auto', 'torch', .* got 'steam'"),
        ('onnxruntime:tensorrt', "runs on cuda, not on cpu; .* engine 'torch'"),
    ],
)
def test_an_engine_that_is_not_there_is_refused_in_a_sentence(engine, said):
    with pytest.raises(DeviceError, match=said):
        chosen_engine(engine, CPU)
    with pytest.raises(DeviceError, match=said):
        DepthPipeline(tiny_smoothdino(), engine=engine, device='cpu')


def test_without_onnxruntime_the_sentence_says_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)  # an import of it raises ImportError
    with pytest.raises(DeviceError, match=r'needs ONNX Runtime .* pip install onnx'):
        chosen_engine('onnxruntime', CPU)
    folder = write_folder(tmp_path / 'in', pictures(2))
    out = tmp_path / 'out'
    command = ['infer', folder, '--output', out, '--model', 'smoothdino-small', '--device', 'cpu']
    assert main([*map(str, command), '--engine', 'onnxruntime']) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("smoothdino: error: engine 'onnxruntime' needs ONNX Runtime")
    assert not list(out.rglob('*'))


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_a_precision_that_onnxruntime_does_not_compute_in_is_refused(precision):
    with pytest.raises(DeviceError, match=f'on cpu does not compute in {precision}: take fp32'):
        chosen_precision(precision, CPU, 'onnxruntime')
    assert chosen_precision('auto', CPU, 'onnxruntime') == 'fp32'


# --- what makes it fast


def fused_attention(query, key, value):
    return torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)


def test_written_scores_give_the_fused_attention():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 40, 16).unbind()
    came, _ = attend(torch.nn.Identity(), query, key, value, scaling=0.25)
    torch.testing.assert_close(came, fused_attention(query, key, value), rtol=1e-4, atol=1e-5)


def test_what_all_keys_have_in_common_costs_no_precision():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 3, 200, 64).unbind()
    key = (key + 30 * torch.randn(1, 3, 1, 64)).bfloat16()  # scores of 100
    query, value = query.bfloat16(), value.bfloat16()
    exact = fused_attention(query.float(), key.float(), value.float())
    came, _ = attend(torch.nn.Identity(), query, key, value)
    as_they_are = (torch.softmax(query / 8 @ key.mT, dim=-1) @ value).transpose(1, 2)
    errors = [float((one - exact).abs().mean()) for one in (came, as_they_are)]
    assert errors[0] < 0.01 * exact.abs().mean()
    assert errors[1] > 5 * errors[0]


@torch.inference_mode()
def test_an_encoder_attends_as_it_is_told(monkeypatch):
    backbone = DepthBackbone(tiny_dpt())
    rgb = torch.randint(256, (1, 56, 70, 3), dtype=torch.uint8)
    expected = backbone.encode(rgb).levels
    calls = []
    monkeypatch.setattr(
        'smoothdino_model.engines.bf16_attention.attend',
        lambda *a, **s: calls.append(1) or attend(*a, **s),
    )
    with_written_scores(backbone.network.backbone)
    for came, level in zip(backbone.encode(rgb).levels, expected, strict=True):
        torch.testing.assert_close(came, level, rtol=1e-4, atol=1e-4)
    assert len(calls) == backbone.network.config.backbone_config.num_hidden_layers


@pytest.mark.parametrize('size', [(56, 70), (75, 93), (1, 1), (240, 14)])
@torch.inference_mode()
def test_fewer_products_are_as_exact(size):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(64, 96, 3, padding=1)
    image = torch.randn(2, 64, *size).to(memory_format=torch.channels_last)
    weight, bias = conv.weight.double(), conv.bias.double()
    exact = torch.nn.functional.conv2d(image.double(), weight, bias, padding=1)
    plain = conv(image)
    fewer = with_winograd(torch.nn.Sequential(conv))
    assert isinstance(fewer[0], WinogradConv2d)
    assert fewer.state_dict().keys() == torch.nn.Sequential(conv).state_dict().keys()
    errors = [float((came - exact).abs().max()) for came in (fewer(image), plain)]
    assert errors[0] < 3 * errors[1] + 1e-6


@pytest.mark.parametrize(
    'settings',
    [{'stride': 2}, {'dilation': 2}, {'groups': 2}, {'padding': 0}, {'padding_mode': 'reflect'}],
)
def test_other_convolutions_stay_as_they_are(settings):
    conv = torch.nn.Conv2d(64, 64, 3, **{'padding': 1, **settings})
    assert with_winograd(torch.nn.Sequential(conv))[0] is conv


@pytest.mark.parametrize('network', [tiny_dpt(), tiny_depth_anything()])
@torch.inference_mode()
def test_the_cheaper_order_gives_the_librarys_maps(network):
    backbone = DepthBackbone(network)
    features = backbone.encode(torch.randint(256, (2, 70, 98, 3), dtype=torch.uint8))
    came = fused_maps(network.neck, features.levels, *features.grid)
    expected = network.neck(list(features.levels), *features.grid)
    for one, other in zip(came, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
