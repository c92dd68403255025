# SPDX-License-Identifier: Apache-2.0
"""The bundled model in each engine and precision that a CPU offers, in one run, with its memory.

`python -m benchmarks.engines --clips DIR ... --calibrate DIR ...` judges each engine, with its own
memory of the last frames, by the true depth of the first clips, as it is and at the right scale,
and by PyTorch's fp32. Eight bits are calibrated on the second ones: in OpenVINO by NNCF
(`pip install nncf`), in ONNX Runtime by its own tools. Then all take turns, frame by frame in a
shuffled order, from RGB to depth.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks import eight_bits
from benchmarks.machine import cpu_name
from smoothdino_model import metrics
from smoothdino_model.engines.choice import make_engine
from smoothdino_model.engines.onnx_export import cached_export
from smoothdino_model.engines.openvino import has_openvino
from smoothdino_model.engines.process import large_pages, use_threads
from smoothdino_model.network.smoothdino import SmoothDino, Step
from smoothdino_model.weights.checkpoint import load_model
from training.data.clips import Clip, find_clips

CPU = torch.device('cpu')
EXACT = 'torch fp32'
FAMILIES = ('torch', 'openvino', 'onnxruntime')
CALIBRATED_ON = 10  # frames of a clip, spread over it
WARM_UP = 3  # frames


@dataclass
class Judged:
    """What is found of each frame, over all clips."""

    abs_rel: list[float] = field(default_factory=list)  # of the true depth
    aligned: list[float] = field(default_factory=list)  # the same at the right scale
    off: list[float] = field(default_factory=list)  # mean relative difference from fp32
    ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


def contenders(
    model: SmoothDino, families: list[str], calibration: list[Clip], folder: Path
) -> dict[str, Step]:
    """Give each engine by its name; eight bits are calibrated on some clips."""

    def by(engine: str, precision: str) -> Step:
        return make_engine(
            model, engine=engine, device=CPU, precision=precision, temporal=True
        ).step

    found = {EXACT: by('torch', 'fp32'), 'torch bf16': by('torch', 'bf16')}
    given = eight_bits.given(model, calibration, CALIBRATED_ON)
    size = calibration[0].read([0]).rgb.shape[1:3]
    if 'openvino' in families and has_openvino():
        found |= {f'openvino {one}': by('openvino', one) for one in ('fp32', 'bf16')}
        if importlib.util.find_spec('nncf'):
            found |= eight_bits.by_openvino(model, size, given)
    if 'onnxruntime' in families and importlib.util.find_spec('onnxruntime'):
        found['onnxruntime fp32'] = by('onnxruntime', 'fp32')
        exported = cached_export(model, size=size, temporal=True)
        found |= eight_bits.by_onnxruntime(model, exported, given, folder)
    return found


@torch.inference_mode()
def judge(
    steps: dict[str, Step], model: SmoothDino, clips: list[Clip], most: int
) -> dict[str, Judged]:
    """Run the first frames of each clip through every engine, each with its own memory."""
    judged = {name: Judged() for name in steps}
    for clip in clips:
        states = dict.fromkeys(steps)
        for position in range(min(most, len(clip))):
            window = clip.read([position])
            rgb, truth_m = torch.from_numpy(window.rgb), window.depth_m[0]
            scale = model.backbone.trained_camera.scale(
                window.focal, height=rgb.shape[1], width=rgb.shape[2]
            )
            exact_m = truth_m
            for name, step in steps.items():
                depth_m, states[name] = step(rgb, states[name])
                came_m = depth_m[0].numpy() * scale
                exact_m = came_m if name == EXACT else exact_m
                scale_error = metrics.scale_error(came_m, truth_m)
                judged[name].abs_rel.append(metrics.abs_rel(came_m, truth_m))
                judged[name].aligned.append(metrics.abs_rel(came_m / np.exp(scale_error), truth_m))
                judged[name].off.append(metrics.abs_rel(came_m, exact_m))
    return judged


@torch.inference_mode()
def time_steps(steps: dict[str, Step], judged: dict[str, Judged], clip: Clip, rounds: int) -> None:
    """Add the milliseconds of frames that have previous ones, and those of all cores for them."""
    order, states = random.Random(0), dict.fromkeys(steps)
    for i in range(-WARM_UP, rounds):
        rgb = torch.from_numpy(clip.read([(WARM_UP + i) % len(clip)]).rgb)
        for name in order.sample(list(steps), len(steps)):
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            _, states[name] = steps[name](rgb, states[name])
            if i >= 0:
                judged[name].cpu_ms.append(1000 * (time.process_time() - began_cpu_s))
                judged[name].ms.append(1000 * (time.perf_counter() - began_s))


def clip_of(folder: Path) -> Clip:
    try:
        return next(one for one in find_clips(folder.parent) if one.name == folder.name)
    except StopIteration:
        raise SystemExit(f'{folder}: expected pictures with their depth beside them') from None


def report(judged: dict[str, Judged]) -> None:
    titles = ['ms', 'cpu ms', 'AbsRel', 'over fp32', 'scale right', 'over fp32']
    print('| ' + ' | '.join(['engine', *titles, 'off from fp32', 'worst frame', 'faster']) + ' |')
    print('|---' * (len(titles) + 4) + '|')
    exact = judged[EXACT]
    for name, one in judged.items():
        errors = []
        for came, expected in ((one.abs_rel, exact.abs_rel), (one.aligned, exact.aligned)):
            more = np.mean(came) / np.mean(expected) - 1
            errors += [f'{np.mean(came):.4f}', f'{100 * more:+.1f} %']
        times = [f'{np.median(ms):.1f}' for ms in (one.ms, one.cpu_ms)]
        away = [f'{100 * share:.2f} %' for share in (np.mean(one.off), max(one.off))]
        faster = f'{np.median(exact.ms) / np.median(one.ms):.2f}'
        print('| ' + ' | '.join([name, *times, *errors, *away, faster]) + ' |')


def main() -> None:
    parser = argparse.ArgumentParser(prog='engines', description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--model', default='smoothdino-small')
    add('--clips', type=Path, nargs='+', required=True, help='folders of frames of one size')
    add('--calibrate', type=Path, nargs='+', required=True, help='other ones of that size')
    add('--frames', type=int, default=50, help='of each clip, by which depth is judged')
    add('--rounds', type=int, default=30, help='by which time is taken')
    add('--engines', nargs='+', choices=FAMILIES, default=FAMILIES)
    add('--threads', type=int, default=0)
    options = parser.parse_args()
    large_pages()
    use_threads(options.threads)
    model = load_model(options.model)
    clips, calibration = (
        [clip_of(one) for one in folders] for folders in (options.clips, options.calibrate)
    )
    with tempfile.TemporaryDirectory() as folder:
        steps = contenders(model, options.engines, calibration, Path(folder))
        judged = judge(steps, model, clips, options.frames)
        print('All give an answer; now their time.', file=sys.stderr, flush=True)
        time_steps(steps, judged, clips[0], options.rounds)
    n = len(judged[EXACT].off)
    print(f'{cpu_name()}, {torch.get_num_threads()} threads, {options.model}, {n} frames\n')
    report(judged)


if __name__ == '__main__':
    main()
