# SPDX-License-Identifier: Apache-2.0
"""What is timed is what runs, where it runs."""

from itertools import count

import numpy as np
import pytest
import torch

import benchmarks.stages
from benchmarks.latency import measure, measure_stages
from benchmarks.stages import stages
from smoothdino_model.pipeline import DepthPipeline
from support.tiny_networks import tiny_dpt, tiny_smoothdino

CPU = torch.device('cpu')
STAGES = ['preprocess', 'encode', 'shift', 'adapter', 'decode', 'resize', 'gemm']


def pictures(n):
    return [np.full((75, 98, 3), 20 * i, np.uint8) for i in range(n)]


def test_a_stage_is_what_repeats_it_as_a_graph_does_on_a_gpu(monkeypatch):
    """The clock stands still but for repetitions: what Python does first falls on no stage."""
    monkeypatch.setitem(benchmarks.stages._GEMM, 'cpu', 8)
    costs_s, now_s, repeated_times = count(1), [0.0], []

    def repeated(work):
        cost_s, made = next(costs_s), work()

        def replay():
            repeated_times.append(cost_s)
            now_s[0] += cost_s

        return replay, made

    pipeline = DepthPipeline(tiny_smoothdino(), device='cpu', precision='fp32')
    ms, rate = stages(pipeline, pictures(3), lambda: now_s[0], 2, repeated)
    costs_ms = {stage: 1e3 * (i + 1) for i, stage in enumerate(STAGES)}
    gemm_ms = costs_ms.pop('gemm')
    assert ms == {'upload': 0, **costs_ms, 'download': 0}
    assert rate == 2 * 8**3 / 1e6 / gemm_ms
    assert repeated_times == [1, 2, 3, 4, 5, 6, 7] * 3


def test_stages_are_pytorchs_in_the_precision_of_whatever_runs_the_network(monkeypatch):
    timed = []

    def note(pipeline, *_):
        timed.append((pipeline.engine, pipeline.model.backbone.dtype))
        return {}, 1.0

    monkeypatch.setattr('benchmarks.latency.stages', note)
    pipeline = DepthPipeline(tiny_smoothdino(), device='cpu', engine='torch', precision='bf16')
    for engine in ('torch', 'openvino'):
        pipeline.engine = engine
        measure_stages(pipeline, tiny_dpt(), (75, 98), pictures(1), lambda: 0.0, 1)
    assert timed == [('torch', torch.bfloat16)] * 2


@pytest.mark.parametrize('asked', [torch.cuda.memory_allocated, torch.cuda.max_memory_allocated])
def test_on_the_cpu_a_gpu_beside_it_is_not_looked_at(asked, monkeypatch):
    def refuse(*_):
        raise AssertionError('the GPU was asked for its memory')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', refuse)
    monkeypatch.setattr(torch.cuda, asked.__name__, refuse)
    rows = measure({'one': lambda rgb: rgb}, pictures(2), lambda: 0.0, 2, CPU)
    assert rows['one']['median_ms'] == 0
