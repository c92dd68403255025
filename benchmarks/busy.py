# SPDX-License-Identifier: Apache-2.0
"""What a client of `depth_node` sees on a machine that does other work, beside a quiet one.

`python -m benchmarks.busy` starts three nodes over real DDS: as it is by default, with one thread,
and with threads that spin as OpenMP's do by default. It sends each one picture at a time, at
640x480, while nothing else runs, while busy loops take one core and all of them, and while a
process multiplies matrices on all cores; the scenes and nodes take turns, in some rounds. A turn
in which anything else on the machine took more than a fifth of a core is taken again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.machine import cpu_name
from benchmarks.node_latency import Rig
from smoothdino_ros.demo.demo import private_network

# What each node finds in its environment beside the machine's.
NODES = {
    'default': {},
    'one_thread': {'OMP_NUM_THREADS': '1'},
    'spinning': {'GOMP_SPINCOUNT': '300000'},  # GNU's, where nothing is set
}
SETS = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')
LOOP = 'while True: pass'
PRODUCTS = 'import numpy as np\na = np.random.rand(1500, 1500)\nwhile True: a @ a'
QUIET, BEFORE = 'quiet', 'spinning'
STRANGERS, TRIES = 'others, cores', 3
Figures = dict[str, float]  # of one node in one scene


def scenes(cores: int) -> dict[str, list[str]]:
    """What runs beside the node, each in a process of its own."""
    return {
        QUIET: [],
        'one core taken': [LOOP],
        'all cores taken': [LOOP] * cores,
        'matrix products': [PRODUCTS],
    }


# The most that each figure may be of the quiet machine's.
GOALS = {
    'one core taken': {'p50 ms': 1.3, 'p99 ms': 1.8, 'cpu ms': 1.3},
    'all cores taken': {'p50 ms': 2.5, 'p99 ms': 4.0, 'cpu ms': 1.3},
    'matrix products': {'p50 ms': 2.5, 'p99 ms': 4.0, 'cpu ms': 1.3},
}


@contextlib.contextmanager
def processes(commands: list[list[str]], environment: dict[str, str]) -> Iterator[list[int]]:
    """Give the ids of processes that run meanwhile."""
    started = [
        subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        yield [one.pid for one in started]
    finally:
        for one in started:
            one.terminate()
        for one in started:
            one.wait(60)


def node_command(name: str, *settings: str) -> list[str]:
    remaps = [f'{topic}:={name}/{topic}' for topic in ('image', 'depth/image', 'depth/points')]
    arguments = [word for one in (f'__node:={name}', *remaps) for word in ('-r', one)]
    arguments += [word for one in (*settings, 'max_gap_s:=100.0') for word in ('-p', one)]
    return [sys.executable, '-m', 'smoothdino_ros.depth_node', '--ros-args', *arguments]


def processor_time_s(process: int) -> float:
    fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')  # user's and system's


def strangers_time_s(ours: list[int]) -> float:
    """Give the processor time that all but some processes have taken."""
    user, nice, system, _, _, *interrupts = map(
        int, Path('/proc/stat').read_text().split('\n', 1)[0].split()[1:8]
    )
    all_s = (user + nice + system + sum(interrupts)) / os.sysconf('SC_CLK_TCK')
    return all_s - sum(map(processor_time_s, ours))


def measured(rig: Rig, name: str, process: int, seconds: float) -> Figures:
    """Send one picture after the other."""
    rig.answer(name)  # and let what ran before go to sleep
    rig.taken(name)
    began_s, began_cpu_s = time.monotonic(), processor_time_s(process)
    while time.monotonic() - began_s < seconds or not rig.latencies_ms[name]:
        rig.answer(name)
    latencies_ms = rig.taken(name)
    p50, p99 = np.percentile(latencies_ms, [50, 99])
    cpu_ms = 1000 * (processor_time_s(process) - began_cpu_s) / len(latencies_ms)
    return {'p50 ms': p50, 'p99 ms': p99, 'cpu ms': cpu_ms}


def undisturbed(rig: Rig, name: str, process: int, seconds: float, ours: list[int]) -> Figures:
    """Measure until nobody but our processes works, and give the quietest of what was tried."""
    tried: list[Figures] = []
    while len(tried) < TRIES and (not tried or tried[-1][STRANGERS] > 0.2):
        began_s, before_s = time.monotonic(), strangers_time_s(ours)
        figures = measured(rig, name, process, seconds)
        took_s = strangers_time_s(ours) - before_s
        tried.append(figures | {STRANGERS: took_s / (time.monotonic() - began_s)})
    return min(tried, key=lambda one: one[STRANGERS])


def rounds(
    options: argparse.Namespace, others: dict[str, list[str]]
) -> dict[tuple[str, str], Figures]:
    """Give the medians over all rounds, by scene and node."""
    plain = {k: v for k, v in os.environ.items() if k not in SETS}
    found: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    order = random.Random(0)
    with contextlib.ExitStack() as stack:
        ids = {}
        for name, environment in NODES.items():
            command = node_command(name, f'model:={options.model}')
            ids[name], *_ = stack.enter_context(processes([command], plain | environment))
        rig = Rig(list(NODES))
        stack.callback(rig.close)
        for name in NODES:
            rig.wait_for(name)
        print('The nodes answer.', file=sys.stderr, flush=True)
        for _ in range(options.rounds):
            for scene in order.sample(list(others), len(others)):
                commands = [[sys.executable, '-c', code] for code in others[scene]]
                with processes(commands, plain) as beside:
                    ours = [os.getpid(), *ids.values(), *beside]
                    for name in order.sample(list(NODES), len(NODES)):
                        figures = undisturbed(rig, name, ids[name], options.seconds, ours)
                        found[scene, name].append(figures)
    return {
        key: {name: median(one[name] for one in all_of_it) for name in all_of_it[0]}
        for key, all_of_it in found.items()
    }


def report(found: dict[tuple[str, str], Figures], order: list[str]) -> None:
    """Print all figures, with those of p50, p99 and processor time over the quiet machine's."""
    default = next(iter(NODES))
    columns = list(found[QUIET, default])
    print('| node | beside it | ' + ' | '.join(columns) + ' | over quiet |')
    print('|---' * (len(columns) + 3) + '|')
    for name in NODES:
        for scene in order:
            figures, quiet = found[scene, name], found[QUIET, name]
            values = [f'{x:.1f}' for x in figures.values()]
            over = ' '.join(f'{figures[one] / quiet[one]:.2f}' for one in columns[:3])
            print('| ' + ' | '.join([name, scene, *values, over if scene != QUIET else '']) + ' |')
    quiet = found[QUIET, default]
    lines = [
        (f'{scene}, {one} over quiet', most, found[scene, default][one] / quiet[one])
        for scene, goals in GOALS.items()
        for one, most in goals.items()
    ]
    before = found[QUIET, BEFORE]['p50 ms']
    lines.append((f'{QUIET}, p50 ms over {BEFORE}', 1.05, quiet['p50 ms'] / before))
    print(f'\n| goal, of {default} | at most | is | |\n|---|---|---|---|')
    for name, most, ratio in lines:
        print(f'| {name} | {most:.2f} | {ratio:.2f} | {"met" if ratio <= most else "not met"} |')


def main() -> None:
    parser = argparse.ArgumentParser(prog='busy', description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='smoothdino-small')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=5.0, help='of each turn')
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    os.environ.update(private_network())
    beside = scenes(cores)
    found = rounds(options, beside)
    print(f'{cpu_name()}, {cores} cores, {options.model}, {options.rounds} rounds\n')
    report(found, list(beside))


if __name__ == '__main__':
    main()
