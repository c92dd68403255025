# SPDX-License-Identifier: Apache-2.0
"""The bundled model in each engine and precision that a CPU offers, in one run, with its memory.

`python -m benchmarks.engines --pictures DIR ... --calibrate DIR ...` exports the network,
calibrates eight bits on pictures of the second folders, and holds each engine, with its own memory
of the last frames, against PyTorch's fp32 on those of the first ones. Then all take turns, frame
by frame in a shuffled order, from RGB to depth. OpenVINO's are there where it is installed.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import cpu_name
from smoothdino_model.engines.choice import make_engine
from smoothdino_model.engines.onnx import OnnxEngine
from smoothdino_model.engines.onnx_export import cached_export
from smoothdino_model.engines.openvino import has_openvino, openvino_library
from smoothdino_model.engines.process import large_pages, use_threads
from smoothdino_model.network.smoothdino import SmoothDino, Step
from smoothdino_model.recordings.open import open_recording
from smoothdino_model.weights.checkpoint import load_model

CPU = torch.device('cpu')
EXACT = 'torch fp32'


class Recorder(OnnxEngine):
    """Keeps what the network is given, to calibrate by."""

    def __init__(self, model: SmoothDino) -> None:
        super().__init__(model, engine='onnxruntime', device=CPU, temporal=True)
        self.given: list[dict[str, np.ndarray]] = []

    def _run(
        self, size: tuple[int, int], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
    ) -> None:
        taken = {one.name for one in self._session_for(size).get_inputs()}
        self.given.append({name: inputs[name].numpy().copy() for name in taken})
        super()._run(size, inputs, outputs)


class OfFile(OnnxEngine):
    """Runs another file than the exported one in ONNX Runtime."""

    def __init__(self, model: SmoothDino, file: Path) -> None:
        super().__init__(model, engine='onnxruntime', device=CPU, temporal=True)
        self._file = file

    def _exported(self, size: tuple[int, int]) -> Path:
        return self._file


class OpenVino(OnnxEngine):
    """Runs a file in OpenVINO, for one frame at a time."""

    def __init__(self, model: SmoothDino, file: Path) -> None:
        super().__init__(model, engine='onnxruntime', device=CPU, temporal=True)
        core = openvino_library().Core()
        network = core.read_model(file)
        network.reshape(
            {one.any_name: [1, *list(one.partial_shape)[1:]] for one in network.inputs}
        )
        settings = {
            'INFERENCE_PRECISION_HINT': 'f32',
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            'PERFORMANCE_HINT': 'LATENCY',
        }
        self._network = core.compile_model(network, 'CPU', settings)

    def _run(
        self, size: tuple[int, int], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
    ) -> None:
        taken = {one.any_name for one in self._network.inputs}
        given = {name: inputs[name].contiguous().numpy() for name in taken}
        found = self._network(given, share_inputs=True, share_outputs=True)
        for name, tensor in outputs.items():
            tensor.copy_(torch.from_numpy(found[name]))


def quantised(exported: Path, given: list[dict[str, np.ndarray]], folder: Path) -> dict[str, Path]:
    """Write the network in eight bits: by what it was given, and by what it will be given."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Given(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(given)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    files = {name: folder / f'{name}.onnx' for name in ('static', 'dynamic')}
    common: dict[str, Any] = {'per_channel': True, 'weight_type': QuantType.QInt8}
    quantize_static(
        exported,
        files['static'],
        Given(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        op_types_to_quantize=['MatMul', 'Gemm', 'Conv'],
        **common,
    )
    quantize_dynamic(exported, files['dynamic'], op_types_to_quantize=['MatMul', 'Gemm'], **common)
    return files


def contenders(model: SmoothDino, shown: list[np.ndarray], folder: Path) -> dict[str, Step]:
    """Give each engine by its name; ``shown`` are the frames to calibrate on."""

    def by(engine: str, precision: str) -> Step:
        return make_engine(
            model, engine=engine, device=CPU, precision=precision, temporal=True
        ).step

    recorder = Recorder(model)
    followed(recorder, shown)
    exported = cached_export(model, size=shown[0].shape[:2], temporal=True)
    files = quantised(exported, recorder.given, folder)
    found: dict[str, Step] = {
        EXACT: by('torch', 'fp32'),
        'torch bf16': by('torch', 'bf16'),
        'onnxruntime fp32': by('onnxruntime', 'fp32'),
        'onnxruntime int8, static': OfFile(model, files['static']),
        'onnxruntime int8, dynamic': OfFile(model, files['dynamic']),
    }
    if has_openvino():
        found |= {
            'openvino fp32': by('openvino', 'fp32'),
            'openvino bf16': by('openvino', 'bf16'),
            'openvino int8': OpenVino(model, files['static']),
        }
    return found


@torch.inference_mode()
def followed(step: Step, frames: list[np.ndarray]) -> list[np.ndarray]:
    """Give the depth (H, W) of each frame, with what is remembered of those before it."""
    depths_m, state = [], None
    for rgb in frames:
        depth_m, state = step(torch.from_numpy(rgb)[None], state)
        depths_m.append(depth_m[0].numpy().copy())
    return depths_m


def off(depth_m: np.ndarray, exact_m: np.ndarray) -> float:
    """Give the mean relative difference of two depths (H, W)."""
    return float(np.mean(np.abs(depth_m - exact_m) / np.maximum(exact_m, 1e-3)))


@torch.inference_mode()
def timed(
    steps: dict[str, Step], frames: list[np.ndarray], clock: Callable[[], float]
) -> dict[str, float]:
    """Give the median milliseconds of a frame that has previous ones."""
    order, states = random.Random(0), dict.fromkeys(steps)
    ms: dict[str, list[float]] = {name: [] for name in steps}
    for rgb in frames:
        for name in order.sample(list(steps), len(steps)):
            began_s = clock()
            _, states[name] = steps[name](torch.from_numpy(rgb)[None], states[name])
            ms[name].append(1000 * (clock() - began_s))
    return {name: float(np.median(values[3:])) for name, values in ms.items()}


def pictures(folders: list[Path], most: int) -> list[list[np.ndarray]]:
    """Give the pictures of each folder in their order, ``most`` in all."""
    left, clips = most, []
    for folder in folders:
        with open_recording(folder) as recording:
            clips.append([frame.rgb for frame in itertools.islice(recording, left)])
        left -= len(clips[-1])
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(prog='engines', description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--model', default='smoothdino-small')
    add('--pictures', type=Path, nargs='+', required=True, help='folders of pictures of one size')
    add('--calibrate', type=Path, nargs='+', required=True, help='other ones')
    add('--frames', type=int, default=200, help='by which depth is judged')
    add('--rounds', type=int, default=30, help='by which time is taken')
    add('--threads', type=int, default=0)
    options = parser.parse_args()
    large_pages()
    use_threads(options.threads)
    model = load_model(options.model)
    clips = pictures(options.pictures, options.frames)
    calibration = [
        rgb for folder in options.calibrate for clip in pictures([folder], 8) for rgb in clip
    ]
    with tempfile.TemporaryDirectory() as folder:
        steps = contenders(model, calibration, Path(folder))
        depths_m = {
            name: [depth_m for clip in clips for depth_m in followed(step, clip)]
            for name, step in steps.items()
        }
        print('All give an answer; now their time.', file=sys.stderr, flush=True)
        ms, cpu_ms = (
            timed(steps, clips[0][: options.rounds], clock)
            for clock in (time.perf_counter, time.process_time)
        )
    n = len(depths_m[EXACT])
    print(f'{cpu_name()}, {torch.get_num_threads()} threads, {options.model}, {n} frames\n')
    print('| engine | ms | cpu ms | off from fp32 | worst frame | fp32 over it |')
    print('|---|---|---|---|---|---|')
    for name, values_m in depths_m.items():
        far = [off(a, b) for a, b in zip(values_m, depths_m[EXACT], strict=True)]
        print(
            f'| {name} | {ms[name]:.1f} | {cpu_ms[name]:.1f} | {100 * np.mean(far):.2f} % | '
            f'{100 * max(far):.2f} % | {ms[EXACT] / ms[name]:.2f} |'
        )


if __name__ == '__main__':
    main()
