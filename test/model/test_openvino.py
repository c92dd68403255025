# SPDX-License-Identifier: Apache-2.0
"""OpenVINO gives what PyTorch gives, from a network that is made once; and `auto` takes it."""

import logging
import sys

import numpy as np
import pytest
import torch

from smoothdino_model.engines import openvino as ours
from smoothdino_model.engines.choice import chosen_engine, chosen_precision, make_engine
from smoothdino_model.engines.names import DeviceError
from smoothdino_model.engines.tensor_network import ExportError, TensorNetwork
from smoothdino_model.network.backbone import DepthBackbone
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.pipeline import CameraFrame, DepthPipeline
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.weights.checkpoint import load_model
from support.joined_stream import SIZE, assert_as_torch
from support.library_depth import batch
from support.streams import clip
from support.tiny_networks import tiny_depth_anything, tiny_smoothdino

CPU = torch.device('cpu')
LOG = 'smoothdino_model'


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    """The user's cache, one for all of these tests."""
    pytest.importorskip('openvino')
    folder = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder))
        yield folder / 'smoothdino' / 'openvino'


@pytest.mark.slow
@pytest.mark.parametrize(
    'model',
    [
        tiny_smoothdino(),
        SmoothDino(DepthBackbone(tiny_depth_anything(), input_height=56), memory=2),
    ],
    ids=['adapter', 'memory'],
)
def test_state_and_depth_are_torchs_over_a_stream_that_cameras_join(cache, model):
    assert_as_torch('openvino', model)


@pytest.mark.slow
@torch.inference_mode()
def test_half_precision_is_close_to_full_on_the_bundled_model(cache):
    engines = [
        make_engine(
            load_model('smoothdino-small'),
            engine='openvino',
            device=CPU,
            precision=precision,
            temporal=True,
        )
        for precision in ('bf16', 'fp32')
    ]
    states = [None, None]
    room = SampleRoom(1_000_000, height=112, width=154)
    for rgb in (room.frame(i).rgb for i in range(3)):
        depths_m = []
        for k, engine in enumerate(engines):
            depth_m, states[k] = engine(batch(rgb), states[k])
            depths_m.append(depth_m)
        error = (depths_m[0] / depths_m[1] - 1).abs().mean()
        assert 0 < error < 0.01
        assert depths_m[1].std() > 0.01


@pytest.mark.slow
def test_a_network_is_made_once_and_lies_whole_in_the_cache(cache, tiny_model_dir, caplog):
    caplog.set_level(logging.INFO, LOG)
    frame = clip(1, height=62, width=64)[0]
    depths_m = []
    for cameras in ('a', 'ab'):
        pipe = DepthPipeline.from_pretrained(tiny_model_dir, engine='openvino', device='cpu')
        caplog.clear()
        assert pipe.warm_up(dict.fromkeys(cameras, frame))
        made = [r for r in caplog.records if 'exporting the network' in r.getMessage()]
        assert len(made) == (cameras == 'a')
        depths_m += [
            result.depth_m for result in pipe.step(dict.fromkeys(cameras, frame)).values()
        ]
    assert all(np.array_equal(depth_m, depths_m[0]) for depth_m in depths_m)
    assert not list(cache.glob('.*'))
    for folder in cache.iterdir():
        assert {file.name for file in folder.iterdir()} == {'model.xml', 'model.bin'}


@pytest.mark.slow
def test_a_network_that_gives_something_else_is_refused_and_not_kept(
    tmp_path, tiny_model_dir, monkeypatch
):
    pytest.importorskip('openvino')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    example = TensorNetwork.example
    monkeypatch.setattr(  # the network is made of other inputs than it is compared on
        TensorNetwork, 'check', lambda self, given, came: check(self, example(self, 1), came)
    )
    pipe = DepthPipeline.from_pretrained(tiny_model_dir, engine='openvino', device='cpu')
    with pytest.raises(ExportError, match=r"differs from PyTorch in \w+ by .*take engine 'torch'"):
        pipe.step({'': CameraFrame(clip(1, **SIZE)[0].rgb, 0)})
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]


check = TensorNetwork.check


# --- what is chosen


def test_auto_takes_it_where_it_is_installed_on_an_x86_cpu_and_says_why(monkeypatch, caplog):
    caplog.set_level(logging.INFO, LOG)
    monkeypatch.setattr(ours, 'find_spec', lambda name: object())
    monkeypatch.setattr(ours.platform, 'machine', lambda: 'x86_64')
    monkeypatch.setattr('smoothdino_model.engines.choice.openvino_library', lambda: object())
    assert chosen_engine('auto', CPU) == 'openvino'
    assert 'engine auto is openvino: it is installed' in caplog.text
    assert chosen_engine('auto', torch.device('meta')) == 'torch'  # as any other device
    monkeypatch.setattr(ours.platform, 'machine', lambda: 'aarch64')
    assert chosen_engine('auto', CPU) == 'torch'


def test_one_that_cannot_be_imported_is_told_of_and_auto_is_torch(monkeypatch, caplog):
    monkeypatch.setattr(ours, 'find_spec', lambda name: object())
    monkeypatch.setattr(ours.platform, 'machine', lambda: 'x86_64')
    monkeypatch.setitem(sys.modules, 'openvino', None)  # an import of it raises ImportError
    assert chosen_engine('auto', CPU) == 'torch'
    assert 'needs OpenVINO' in caplog.text
    assert 'engine auto is torch' in caplog.text
    with pytest.raises(DeviceError, match=r"^engine 'openvino' needs .* pip install openvino"):
        DepthPipeline(tiny_smoothdino(), engine='openvino', device='cpu')


def test_what_it_does_not_run_is_refused_in_a_sentence():
    with pytest.raises(DeviceError, match=r"runs on cpu, not on meta; .* engine 'torch'"):
        chosen_engine('openvino', torch.device('meta'))
    with pytest.raises(DeviceError, match='does not compute in fp16: take fp32 or bf16'):
        chosen_precision('fp16', CPU, 'openvino')


def test_its_import_tells_nobody(monkeypatch):
    pytest.importorskip('openvino')
    ours.openvino_library()
    telemetry = sys.modules['openvino.tools.ovc.telemetry_utils'].tm
    assert telemetry.__name__ == 'openvino.tools.ovc.telemetry_stub'
