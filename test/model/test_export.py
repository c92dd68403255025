# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime gives what PyTorch gives: depth and state, over streams, from exported files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from smoothdino_model.cli.main import main
from smoothdino_model.engines.onnx_export import FILE_NAME
from smoothdino_model.network.memory import FRAMES, recall
from smoothdino_model.network.smoothdino import SmoothDino
from smoothdino_model.pipeline import DepthPipeline, DepthResult
from smoothdino_model.room.sample_room import SampleRoom
from smoothdino_model.weights.checkpoint import load_model
from support.joined_stream import SIZE, assert_as_torch, assert_close_in_half
from support.library_depth import assert_close, batch, by_the_library, relative_error
from support.made_recordings import pictures, write_folder
from support.streams import clip
from support.tiny_networks import tiny_smoothdino

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnx')
pytest.importorskip('onnxscript')

# An export takes half a minute of a slow core, and more on one that others use.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    """The user's cache, one for all of these tests."""
    folder = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder))
        yield folder / 'smoothdino' / 'onnx'


def assert_same(came: dict[str, DepthResult], expected: dict[str, DepthResult]) -> None:
    assert list(came) == list(expected)
    for camera, result in came.items():
        other = expected[camera]
        assert result.reset == other.reset
        assert result.shift_px == pytest.approx(other.shift_px, abs=1e-3)
        assert result.confidence == pytest.approx(other.confidence, abs=1e-4)
        assert_close(torch.from_numpy(result.depth_m), torch.from_numpy(other.depth_m))


def pipelines(model_dir: Path) -> tuple[DepthPipeline, DepthPipeline]:
    by_onnx, by_torch = (
        DepthPipeline.from_pretrained(model_dir, engine=engine, device='cpu', precision='fp32')
        for engine in ('onnxruntime', 'torch')
    )
    assert (by_onnx.engine, by_onnx.precision) == ('onnxruntime', 'fp32')
    return by_onnx, by_torch


def test_state_and_depth_are_torchs_over_a_stream_that_cameras_join(cache):
    assert_as_torch('onnxruntime', tiny_smoothdino())


def test_pipelines_agree_over_resets_gaps_and_cameras(cache, tiny_model_dir):
    by_onnx, by_torch = pipelines(tiny_model_dir)
    a, b = clip(8, **SIZE), clip(8, seed=1, **SIZE)
    for i in range(8):
        frames = {'a': a[i]} | ({'b': b[i]} if i > 1 else {})
        if i == 3:
            by_onnx.reset('a')
            by_torch.reset('a')
        if i == 5:
            frames['b'] = replace(b[i], frame_id='moved')
        if i == 6:
            late = {name: f.stamp_ns + 3 * 10**9 for name, f in frames.items()}
            frames = {name: replace(f, stamp_ns=late[name]) for name, f in frames.items()}
        assert_same(by_onnx.step(frames), by_torch.step(frames))


def test_a_network_is_exported_once(monkeypatch, tmp_path, tiny_model_dir):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    cache = tmp_path / 'smoothdino' / 'onnx'
    pipelines(tiny_model_dir)[0].step({'a': clip(1, **SIZE)[0]})
    written = {path: path.stat().st_mtime_ns for path in cache.rglob('*') if path.is_file()}
    assert [path.name for path in written] == [FILE_NAME]
    pipelines(tiny_model_dir)[0].step(dict.fromkeys('abc', clip(1, **SIZE)[0]))
    assert {p: p.stat().st_mtime_ns for p in cache.rglob('*') if p.is_file()} == written


def test_infer_by_onnxruntime_writes_the_depth_of_torch(cache, tiny_model_dir, tmp_path):
    folder = write_folder(tmp_path / 'in', pictures(4))
    for engine in ('onnxruntime', 'torch'):
        command = ['infer', folder, '--output', tmp_path / engine, '--model', tiny_model_dir]
        command += ['--device', 'cpu', '--precision', 'fp32', '--engine', engine]
        assert main([*map(str, command)]) == 0
        summary = json.loads((tmp_path / engine / 'summary.json').read_text())
        assert (summary['engine'], summary['frames']) == (engine, 4)
    names = [path.name for path in (tmp_path / 'torch').glob('*.npy')]
    assert len(names) == 4
    for name in names:
        came, expected = (
            torch.from_numpy(np.load(tmp_path / engine / name))
            for engine in ('onnxruntime', 'torch')
        )
        assert_close(came, expected)


class Exported:
    """A file run by what stands in its documentation, without the package's engine."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        self.levels = [o.name for o in self.session.get_outputs() if o.name != 'depth_m']
        self.last: list[tuple[Tensor, ...]] = []  # frames, the newest first

    def __call__(self, pixels: Tensor, travelled: Tensor, grid: tuple[int, int]) -> Tensor:
        named = {i.name: i.shape for i in self.session.get_inputs()}
        assert set(named) == {'pixels', 'count', *(f'recalled_{i}' for i in range(4))}
        if self.last:
            levels = [torch.stack(level, dim=1) for level in zip(*self.last, strict=True)]
            known = torch.ones(travelled.shape[:2], dtype=torch.bool)
            came = recall(levels, known, travelled, grid=grid, dtype=torch.float32)
            sums, count = came.sums, came.count
        else:
            sums = [torch.zeros(1, *named[f'recalled_{i}'][1:]) for i in range(len(self.levels))]
            count = torch.zeros(1, *named['count'][1:])
        inputs = {'pixels': pixels, 'count': count} | {
            f'recalled_{i}': level for i, level in enumerate(sums)
        }
        fed = {name: inputs[name].numpy() for name in named}
        depth_m, *features = self.session.run(['depth_m', *self.levels], fed)
        self.last = [tuple(map(torch.from_numpy, features)), *self.last][:FRAMES]
        return torch.from_numpy(depth_m)


@torch.inference_mode()
def test_the_exported_bundled_model_is_the_librarys_over_a_stream(tmp_path, capsys):
    """At the bundled model's own size, run by ONNX Runtime alone."""
    output, size = tmp_path / 'exported', (224, 294)
    assert main(['export', 'smoothdino-small', '--output', str(output), '--size', '224x294']) == 0
    assert str(output / FILE_NAME) in capsys.readouterr().out
    exported = Exported(output / FILE_NAME)
    assert json.loads(exported.metadata['frame_size']) == list(size)
    mean, std = (np.array(json.loads(exported.metadata[name])) for name in ('mean', 'std'))

    model: SmoothDino = load_model('smoothdino-small')
    room = SampleRoom(1_000_000, height=size[0], width=size[1])
    state, travelled = None, torch.zeros(1, 0, 2)
    for i in range(4):
        rgb = room.frame(i).rgb
        pixels = torch.from_numpy((rgb - mean) / std).float().permute(2, 0, 1)[None]
        expected_m, state = by_the_library(model, batch(rgb), state)
        shift = state.shift_px / model.backbone.patch
        if i:
            before = torch.cat((torch.zeros(1, 1, 2), travelled), dim=1)
            travelled = before[:, :FRAMES] + shift[:, None]
        came_m = exported(pixels, travelled, model.see(batch(rgb)).features.grid)
        assert expected_m.std() > 0.1
        assert expected_m.min() > 0.1
        assert relative_error(came_m, expected_m) < 1e-3  # ours kept half precision
        for level, expected in zip(exported.last[0], state.levels, strict=True):
            assert_close_in_half(level.half(), expected[:, 0])


def test_what_cannot_be_exported_is_refused_in_a_sentence(tmp_path, tiny_model_dir, capsys):
    full = tmp_path / 'full'
    full.mkdir()
    (full / 'mine').write_text('kept')
    for options, said in (
        (['--output', full], 'a folder with something in it: expected a new name'),
        (['--output', tmp_path / 'a', '--size', '480'], 'expected HEIGHTxWIDTH such as 480x640'),
        (['--output', tmp_path / 'a', '--precision', 'bf16'], 'expected fp32 or fp16, got'),
    ):
        assert main(['export', str(tiny_model_dir), *map(str, options)]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line
    assert [path.name for path in tmp_path.rglob('*')] == ['full', 'mine']
