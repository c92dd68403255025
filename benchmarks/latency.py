# SPDX-License-Identifier: Apache-2.0
"""From frame to depth: this package beside the published code and plain per-frame networks.

`python -m benchmarks.latency` takes turns between all of them, frame by frame in a shuffled order,
so that whatever else the machine does falls on each alike. Prints tables; --json writes them,
--plot draws them.

`ours` is temporal; the ratios take it with the engine and precision that `auto` picks. On a
machine that others use too, `--clock cpu` counts the processor time of this process instead of the
time that passes (with OMP_NUM_THREADS=1: with more, it adds up over the threads).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.contenders import (
    SIZES,
    Ours,
    PerFrame,
    Published,
    network_of,
    next_size,
    pipeline_of,
    random_network,
)
from benchmarks.machine import machine
from benchmarks.stages import counted_gflop, stages
from smoothdino_model.engines.choice import (
    chosen_device,
    chosen_engine,
    chosen_precision,
)
from smoothdino_model.engines.cuda_graph import TIMES_SEEN
from smoothdino_model.engines.names import DeviceError
from smoothdino_model.engines.process import large_pages
from smoothdino_model.pipeline import DepthPipeline

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
Row = dict[str, Any]
Call = Callable[[np.ndarray], Any]  # gives depth on the host: it has waited for the device


def measure(
    calls: Mapping[str, Call],
    frames: list[np.ndarray],
    clock: Callable[[], float],
    rounds: int,
    device: torch.device,
) -> dict[str, Row]:
    """Time one call of each in turn, ``rounds`` times, after some of each to warm up."""
    ms: dict[str, list[float]] = {name: [] for name in calls}
    peak_mb: dict[str, float] = {}
    for call in calls.values():
        for _ in range(TIMES_SEEN if device.type == 'cuda' else 1):  # until it is a CUDA graph
            call(frames[0])
    order = list(calls)
    rng = np.random.default_rng(0)
    for i in range(1, rounds + 1):
        rng.shuffle(order)
        for name in order:
            before_mb = _memory_mb('VmRSS', device) if i == 1 else 0
            start = clock()
            calls[name](frames[i % len(frames)])
            ms[name].append(1e3 * (clock() - start))
            if i == 1:
                peak_mb[name] = _memory_mb('VmHWM', device) - before_mb
    return {
        name: {
            'median_ms': float(np.median(ms[name])),
            'p10_ms': float(np.percentile(ms[name], 10)),
            'p90_ms': float(np.percentile(ms[name], 90)),
            'peak_memory_mb': peak_mb[name],
        }
        for name in calls
    }


def _memory_mb(what: str, device: torch.device) -> float:
    """Give what is in use (VmRSS) or was at most since that was asked (VmHWM).

    Of a device that is a GPU, else of this process; NaN where Linux does not tell.
    """
    now = what == 'VmRSS'
    if device.type == 'cuda':
        if now:
            torch.cuda.reset_peak_memory_stats(device)
            return torch.cuda.memory_allocated(device) / 2**20
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        if now:
            Path('/proc/self/clear_refs').write_text('5')
        status = Path('/proc/self/status').read_text()
    except OSError:
        return math.nan
    return float(re.findall(rf'{what}:\s+(\d+) kB', status)[0]) / 1024


def ways(device: torch.device, engines: list[str]) -> list[tuple[str, str]]:
    """Give engines and precisions to time, first the ones that ``auto`` picks."""
    picked = chosen_engine('auto', device)
    ways = [(picked, chosen_precision('auto', device, picked))]
    for engine in engines:
        try:
            chosen_engine(engine, device)
        except DeviceError as error:
            print(f'left out: {error}')
            continue
        ways += [(engine, p) for p in (chosen_precision('auto', device, engine), 'fp32')]
    return list(dict.fromkeys(ways))


def contenders(
    network: Any, larger: str, device: torch.device, picked: list[tuple[str, str]]
) -> dict[str, tuple[str, str, Call]]:
    """Give engine, precision and call of everything to compare, by name."""
    calls: dict[str, tuple[str, str, Call]] = {
        'published loop': ('transformers', 'fp32', Published(network, device, demo=False)),
        'published demo': ('transformers', 'fp32', Published(network, device, demo=True)),
    }
    for name, one in (('', network), (f', {larger}', random_network(larger))):
        for precision in dict.fromkeys(('fp32', picked[0][1])):
            call = PerFrame(one, device, precision)
            calls[f'per frame{name} ({precision})'] = ('transformers', precision, call)
    for engine, precision in picked:
        for temporal in (False, True):
            settings: Any = {'engine': engine, 'precision': precision, 'temporal': temporal}
            name = ours_name(engine, precision, temporal)
            ours = Ours(pipeline_of(network, device=device, **settings))
            calls[name] = (engine, precision, ours)
    return calls


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, printing each table as it is there, and give all of it."""
    device, clock = chosen_device(args.device), CLOCKS[args.clock]
    rounds = args.rounds or (3 if device.type == 'cpu' else 30)
    few = max(1, rounds // 3)  # for what takes many frames
    size = (int(args.size.split('x')[0]), int(args.size.split('x')[1]))
    frames = _ride(size)
    picked = ways(device, args.engines)
    network = network_of(args.model)
    larger = next_size(network)
    about = {
        'date': date.today().isoformat(),
        'machine': machine(device),
        'model': args.model,
        'size': args.size,
        'clock': args.clock,
        'rounds': rounds,
    }
    print(', '.join(f'{name} {value}' for name, value in about.items()))

    results = compare(contenders(network, larger, device, picked), frames, clock, rounds, device)
    pipeline = pipeline_of(network, device=device)
    by_stage = measure_stages(pipeline, network, size, frames, clock, rounds)
    batches = measure(
        {str(n): Ours(pipeline, n) for n in args.batches}, frames, clock, few, device
    )
    _print_table(
        ['cameras in a batch', 'ms', 'ms per frame'],
        [[n, row['median_ms'], row['median_ms'] / int(n)] for n, row in batches.items()],
    )
    ours_ms = next(row['median_ms'] for row in results if row['name'] == ours_name(*picked[0]))
    ratios = {
        **end_to_end_ratios(results, larger, *picked[0]),
        **stage_ratios(**by_stage, ours_ms=ours_ms),
        **batch_ratios(batches),
    }
    _print_table(['ratio', ''], [[name, f'{value:.3f}'] for name, value in ratios.items()])
    lower = {h: pipeline_of(network, input_height=h, device=device) for h in args.heights}
    heights = measure({str(h): Ours(lower[h]) for h in lower}, frames, clock, few, device)
    _print_table(
        ['input_height', 'ms', 'frames/s'],
        [[h, row['median_ms'], 1e3 / row['median_ms']] for h, row in heights.items()],
    )
    return {
        **about,
        'picked': picked[0],
        'ours_ms': ours_ms,
        'results': results,
        'ratios': ratios,
        **by_stage,
        'batches': batches,
        'input_heights': heights,
    }


def measure_stages(
    pipeline: DepthPipeline,
    network: Any,
    size: tuple[int, int],
    frames: list[np.ndarray],
    clock: Callable[[], float],
    rounds: int,
) -> Row:
    """Measure what a step is made of, print it, and give milliseconds, GFLOP and the rate of a
    matrix product.

    Another engine's run is one piece: then they are PyTorch's in the same precision.
    """
    if pipeline.engine != 'torch':
        pipeline = pipeline_of(
            network, device=pipeline.device, engine='torch', precision=pipeline.precision
        )
    stages_ms, rate = stages(pipeline, frames, clock, rounds)
    gflop = counted_gflop(network, size)
    _print_table(
        ['stage', 'ms', 'GFLOP', f'ms at {rate:.1f} GFLOP/s, of a matrix product'],
        [
            [stage, ms, *([gflop[stage], 1e3 * gflop[stage] / rate] if stage in gflop else '--')]
            for stage, ms in stages_ms.items()
        ],
    )
    return {'stages_ms': stages_ms, 'gflop': gflop, 'gemm_gflop_per_s': rate}


def stage_ratios(
    stages_ms: Mapping[str, float],
    gflop: Mapping[str, float],
    gemm_gflop_per_s: float,
    ours_ms: float,
) -> dict[str, float]:
    """Give shares of the stages, and of what a matrix product would take for their work."""
    ideal_ms = {stage: 1e3 * work / gemm_gflop_per_s for stage, work in gflop.items()}
    return {
        'shift_share': stages_ms['shift'] / sum(stages_ms.values()),
        'encoder_over_gemm': stages_ms['encode'] / ideal_ms['encode'],
        'adapter_over_gemm': stages_ms['adapter'] / ideal_ms['adapter'],
        'decoder_over_gemm': stages_ms['decode'] / ideal_ms['decode'],
        'roofline_share': sum(ideal_ms.values()) / ours_ms,
    }


def batch_ratios(batches: Mapping[str, Row]) -> dict[str, float]:
    if not {'1', '4'} <= batches.keys():
        return {}
    return {'four_cameras_over_one': batches['4']['median_ms'] / batches['1']['median_ms']}


def ours_name(engine: str, precision: str, temporal: bool = True) -> str:
    return f'ours{"" if temporal else ", plain"} ({engine} {precision})'


def compare(
    calls: Mapping[str, tuple[str, str, Call]],
    frames: list[np.ndarray],
    clock: Callable[[], float],
    rounds: int,
    device: torch.device,
) -> list[Row]:
    """Measure the contenders, print their table, and give a row of each with its name."""
    rows = measure(
        {name: call for name, (_, _, call) in calls.items()}, frames, clock, rounds, device
    )
    results = [
        {'name': name, 'engine': calls[name][0], 'precision': calls[name][1], **row}
        for name, row in rows.items()
    ]
    _print_table(
        ['', 'median ms', 'p10 ms', 'p90 ms', 'memory of a frame, MB'],
        [[row['name'], *list(row.values())[3:]] for row in results],
    )
    return results


def end_to_end_ratios(
    results: list[Row], larger: str, engine: str, precision: str
) -> dict[str, float]:
    """Give medians over each other, ours with this engine and precision."""
    ms = {row['name']: row['median_ms'] for row in results}
    ours = ms[ours_name(engine, precision)]
    return {
        'published_over_ours': ms['published loop'] / ours,
        'published_demo_over_ours': ms['published demo'] / ours,
        'temporal_over_per_frame': ours / ms[ours_name(engine, precision, temporal=False)],
        'small_over_base': ours / ms[f'per frame, {larger} ({precision})'],
    }


def _print_table(titles: list[str], rows: list[list[Any]]) -> None:
    print('', f'| {" | ".join(titles)} |', '|---' * len(titles) + '|', sep='\n')
    for row in rows:
        cells = [f'{cell:.1f}' if isinstance(cell, float) else str(cell) for cell in row]
        print(f'| {" | ".join(cells)} |', flush=True)


def _ride(size: tuple[int, int], n: int = 8) -> list[np.ndarray]:
    """Give a random picture that moves: RGB uint8 (H, W, 3)."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (size[0] + 4 * n, size[1] + 6 * n, 3), dtype=np.uint8)
    return [picture[4 * i :][: size[0], 6 * i :][:, : size[1]].copy() for i in range(n)]


def draw(report: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    rows = report['results'][::-1]
    figure = Figure(figsize=(9, 1 + 0.4 * len(rows)), layout='constrained')
    axes = figure.subplots()
    medians = np.array([row['median_ms'] for row in rows])
    spread = np.abs([[row[p] for row in rows] for p in ('p10_ms', 'p90_ms')] - medians)
    names = [row['name'] for row in rows]
    colours = ['tab:blue' if name.startswith('ours') else 'tab:gray' for name in names]
    axes.barh(names, medians, xerr=spread, color=colours, error_kw={'lw': 1})
    axes.set_xlabel(f'ms per frame of {report["size"]}, {report["model"]} (median, p10 to p90)')
    axes.set_title(report['machine'], fontsize=8)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> None:
    large_pages()
    parser = argparse.ArgumentParser(prog='latency', description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('--device', default='auto', help='auto, cpu, cuda, ...')
    add('--model', default='small', help=f'{", ".join(SIZES)}, a directory or a Hugging Face id')
    add('--size', default='480x640', help='HEIGHTxWIDTH of the frames')
    add('--rounds', type=int, default=0, help='by default 3 on a CPU, 30 on a GPU')
    with_onnx = ['onnxruntime'] if importlib.util.find_spec('onnxruntime') else []
    add('--engines', nargs='*', default=['torch', *with_onnx], help='besides what auto picks')
    add('--batches', nargs='*', type=int, default=[1, 2, 4, 8], help='cameras in a batch')
    add('--heights', nargs='*', type=int, default=[336, 224, 112], help='input_height')
    add('--clock', choices=CLOCKS, default='wall')
    add('--json', type=Path)
    add('--plot', type=Path, help='a .png or .svg')
    args = parser.parse_args(argv)
    if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', args.size):
        parser.error(f'--size: expected HEIGHTxWIDTH, got {args.size}')
    report = run(args)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + '\n')
    if args.plot:
        draw(report, args.plot)


if __name__ == '__main__':
    main()
