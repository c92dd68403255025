# SPDX-License-Identifier: Apache-2.0
"""What half an hour under load says of the node: what had to hold, figures, and curves."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import cpu_name

OUTCOMES = ('unwanted', 'dropped', 'overdue', 'rejected', 'failed', 'answered')
JUDGED_AFTER_MIN = 10.0  # before, what is remembered of rates and latencies still fills
BLOCKS, STUDENT_T = 20, 2.101  # means of blocks are nearly independent; t of 18 degrees, 95 %


@dataclass(frozen=True)
class Sample:
    """What was seen of the node at one moment, and of each camera by then."""

    at_s: float
    private_mb: float  # resident memory that is the node's alone
    shared_mb: float  # what it has touched of Fast DDS's segments, up to their size
    threads: int
    files: int
    cameras: dict[str, dict[str, float]]  # the numbers of the latest diagnostics


def waiting(camera: dict[str, float]) -> int:
    """How many received frames have no outcome yet."""
    return int(camera['received'] - sum(camera[name] for name in OUTCOMES))


def slope_per_hour(at_s: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """The slope of a line through the values, and its interval of 95 % confidence.

    From the means of blocks: one second's memory is nearly that of the second before, and a line
    through correlated samples would be too sure of itself.
    """
    t = np.array([one.mean() for one in np.array_split(at_s, BLOCKS)]) / 3600
    y = np.array([one.mean() for one in np.array_split(values, BLOCKS)])
    slope, offset = np.polyfit(t, y, 1)
    residual = y - slope * t - offset
    variance = residual @ residual / (BLOCKS - 2) / ((t - t.mean()) ** 2).sum()
    margin = STUDENT_T * float(np.sqrt(variance))
    return float(slope), float(slope) - margin, float(slope) + margin


def report(
    options: argparse.Namespace,
    samples: list[Sample],
    loaded: list[Sample],
    *,
    arrived: dict[str, int],
    stops: int,
    max_latency_s: float,
    can_hz: float,
    rate_hz: float,
) -> dict:
    """What was measured, and `held`: what had to hold, and whether it did.

    `loaded` are the samples that were taken under load, `arrived` the answers of each camera.
    """
    last = samples[-1].cameras
    warm = loaded[len(loaded) // 5 :]
    at_s, private_mb = np.array([(one.at_s, one.private_mb) for one in warm]).T
    slope, low, high = slope_per_hour(at_s, private_mb)
    most_waiting = max(waiting(c) for one in loaded for c in one.cameras.values())
    late = [c['latency p99 [ms]'] for one in warm for c in one.cameras.values()]
    held = {
        'every frame answered or counted': all(waiting(c) == 0 for c in last.values()),
        'one frame waiting and one in work at most': most_waiting <= 2,
        'every answer arrived': all(last[n]['answered'] == arrived[n] for n in arrived),
        'no step failed, nothing was rejected': not sum(
            c['failed'] + c['rejected'] for c in last.values()
        ),
        'overdue frames were dropped and counted': stops == 0
        or sum(c['overdue'] for c in last.values()) > 0,
        'threads and files do not pile up': warm[-1].threads <= warm[0].threads
        and warm[-1].files <= warm[0].files,
    }
    if options.minutes >= JUDGED_AFTER_MIN:
        held['memory does not grow'] = low <= 0
    return {
        'machine': {'cpu': cpu_name(), 'torch': torch.__version__},
        'options': vars(options),
        'the node can [Hz per camera]': round(can_hz, 2),
        'cameras [Hz each]': round(rate_hz, 2),
        'answered [Hz per camera]': round(
            float(np.mean([c['output rate [Hz]'] for s in warm for c in s.cameras.values()])), 2
        ),
        'latency p99 [ms], the median of all seconds': round(float(np.median(late)), 1),
        'max_latency_s': max_latency_s,
        'stops of the node': stops,
        'private memory [MB]': {'at first': private_mb[0], 'at last': private_mb[-1]},
        'shared memory [MB]': {'at first': warm[0].shared_mb, 'at last': warm[-1].shared_mb},
        'private memory [MB per hour]': {'slope': slope, '95 %': [low, high]},
        'threads': [warm[0].threads, warm[-1].threads],
        'files': [warm[0].files, warm[-1].files],
        'cameras': {
            n: {k: int(last[n][k]) for k in ('received', *OUTCOMES)} | {'arrived': arrived[n]}
            for n in arrived
        },
        'held': held,
    }


def plot(samples: list[Sample], cameras: list[str], path: Path) -> None:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(9, 8))
    minutes = [(one.at_s - samples[0].at_s) / 60 for one in samples]
    axes[0].plot(minutes, [one.private_mb for one in samples], label='private')
    axes[0].plot(minutes, [one.shared_mb for one in samples], label='shared with Fast DDS')
    axes[0].set_ylabel('resident memory of the node [MB]')
    for name in cameras:
        for axis, key in ((axes[1], 'input rate [Hz]'), (axes[1], 'output rate [Hz]')):
            values = [one.cameras.get(name, {}).get(key, np.nan) for one in samples]
            axis.plot(minutes, values, label=f'{name}: {key.removesuffix(" [Hz]")}')
        values = [one.cameras.get(name, {}).get('latency p99 [ms]', np.nan) for one in samples]
        axes[2].plot(minutes, values, label=name)
    axes[1].set_ylabel('rate [Hz]')
    axes[2].set_ylabel('latency p99 [ms]')
    axes[2].set_xlabel('minutes')
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
