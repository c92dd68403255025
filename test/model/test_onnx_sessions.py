# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime holds few sizes at a time, the latest used ones, and is told what it knows."""

import os
from itertools import count
from pathlib import Path

import pytest
import torch

from smoothdino_model.engines import export_cache, onnx_export
from smoothdino_model.engines.export_cache import EXPORTS_KEPT
from smoothdino_model.engines.exported_step import SESSIONS_KEPT
from smoothdino_model.engines.names import PROVIDERS
from smoothdino_model.engines.onnx import OnnxEngine, providers_with_options, session_options
from smoothdino_model.engines.onnx_export import FILE_NAME, cached_export
from support.onnxruntime_options import DOCUMENTED, LIBRARIES
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


# --- what a session is asked for


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('engine', ['onnxruntime', 'onnxruntime:tensorrt'])
def test_every_option_is_one_that_the_library_documents(engine, half):
    providers = providers_with_options(
        engine, torch.device('cuda:1'), half=half, engines=Path('/cache/tensorrt')
    )
    assert providers[0][0] == PROVIDERS[engine]['cuda']
    assert providers[-1][0] == 'CUDAExecutionProvider'  # takes what TensorRT does not
    for provider, options in providers:
        assert set(options) <= DOCUMENTED[provider]
        assert options['device_id'] == '1'
        assert all(isinstance(value, str) for value in options.values())


@pytest.mark.parametrize(('policy', 'spins'), [('passive', '0'), ('active', '1'), ('', '1')])
def test_its_threads_are_as_many_as_those_of_torch_and_wait_as_they_do(monkeypatch, policy, spins):
    onnxruntime = pytest.importorskip('onnxruntime')
    monkeypatch.setenv('OMP_WAIT_POLICY', policy)
    options = session_options(onnxruntime)
    assert options.intra_op_num_threads == torch.get_num_threads()
    assert options.get_session_config_entry('session.intra_op.allow_spinning') == spins


@pytest.mark.parametrize('provider', LIBRARIES)
def test_every_option_is_one_that_the_installed_library_knows(provider):
    onnxruntime = pytest.importorskip('onnxruntime')
    library = Path(onnxruntime.__file__).parent / 'capi' / LIBRARIES[provider]
    if not library.is_file():
        pytest.skip(f'{library.name} comes with onnxruntime-gpu')
    known = library.read_bytes()
    providers = providers_with_options(
        'onnxruntime:tensorrt', torch.device('cuda'), half=True, engines=Path('/cache')
    )
    for option in dict(providers)[provider]:
        assert option.encode() in known, option


def test_tensorrt_keeps_its_engines_and_computes_in_the_precision_of_the_network():
    options = {
        half: providers_with_options(
            'onnxruntime:tensorrt', torch.device('cuda'), half=half, engines=Path('/cache/trt')
        )[0][1]
        for half in (False, True)
    }
    assert options[True] == {**options[False], 'trt_fp16_enable': 'True'}
    assert options[False]['trt_fp16_enable'] == 'False'
    assert options[True]['trt_engine_cache_enable'] == 'True'
    assert options[True]['trt_engine_cache_path'] == '/cache/trt'


def test_a_cpu_is_asked_for_nothing_special():
    cpu = torch.device('cpu')
    providers = providers_with_options('onnxruntime', cpu, half=False, engines=Path('/cache'))
    assert providers == [('CPUExecutionProvider', {})]


# --- what lies in the cache


def test_the_cache_keeps_the_exports_that_were_used_last(tmp_path, monkeypatch):
    def written(model, folder, *, size, temporal):
        made.append(size)
        folder.mkdir(parents=True)
        (folder / FILE_NAME).write_text('a network')

    made, clock, utime = [], count(), os.utime
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(onnx_export, 'export_onnx', written)
    monkeypatch.setattr(export_cache.os, 'utime', lambda path: utime(path, (next(clock),) * 2))
    model = tiny_smoothdino()
    sizes = [(14 * i, 14) for i in range(1, EXPORTS_KEPT + 1)]
    first, second, *_ = [cached_export(model, size=size, temporal=True) for size in sizes]
    stranger = tmp_path / 'smoothdino' / 'onnx' / 'notes'
    stranger.mkdir()
    assert cached_export(model, size=sizes[0], temporal=True) == first
    cached_export(model, size=(14, 140), temporal=True)
    assert made == [*sizes, (14, 140)]
    assert first.is_file()
    assert not second.parent.exists()  # the one whose use lies back the farthest
    assert stranger.is_dir()
    assert len(list(stranger.parent.glob(f'*/{FILE_NAME}'))) == EXPORTS_KEPT
