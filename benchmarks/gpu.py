# SPDX-License-Identifier: Apache-2.0
"""Everything that needs an NVIDIA GPU, and the verdict: `make gpu`, or `python -m benchmarks.gpu`.

Runs the tests that are marked gpu and benchmarks.latency, then writes gpu.json and gpu.md into the
folder of --output. Python's own libraries suffice to start it: an interpreter that lacks something
has `make setup` make the environment in .venv, which goes on.

Exit code 0: all tests pass and all goals are met; 1: not all; 2: it could not run.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TESTS = ('test/model/test_on_gpu.py', 'test/ros/test_node_on_gpu.py')
NEEDED = ('torch', 'transformers', 'safetensors', 'huggingface_hub', 'cv2', 'tqdm', 'pytest')
FASTEST_CARDS = ('H100', 'H200', 'GH200', 'B100', 'B200', 'GB200', 'B300', 'GB300')
_VENV = ROOT / '.venv'


def missing_gpu() -> str:
    """Say in a sentence what of a GPU is missing, empty where nothing is."""
    try:
        driver = ctypes.CDLL('libcuda.so.1')
    except OSError:
        return 'an NVIDIA GPU and its driver are missing: there is no libcuda.so.1 here.'
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return 'an NVIDIA GPU is missing: its driver is here and finds none.'
    return ''


def missing_packages() -> str:
    """Say in a sentence what this interpreter lacks, empty where nothing is."""
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        return f'{sys.executable} lacks {", ".join(lacking)}.'
    import torch

    if not torch.cuda.is_available():
        return (
            f'{sys.executable} has torch {torch.__version__}, which reaches no GPU: it needs one '
            'built for a CUDA that the driver knows, as PyPI has it.'
        )
    return ''


def run_tests(output: Path) -> dict[str, int]:
    """Give how many tests passed, failed and were skipped; no test of ROS 2 without rclpy."""
    report = output / 'tests.xml'
    report.unlink(missing_ok=True)
    command = [sys.executable, '-m', 'pytest', '-m', 'gpu', f'--junitxml={report}', *TESTS]
    subprocess.run(command, cwd=ROOT)
    if not report.is_file():  # pytest itself could not run
        return {'passed': 0, 'failed': 1, 'skipped': 0}
    count = {'tests': 0, 'failures': 0, 'errors': 0, 'skipped': 0}
    for suite in ElementTree.parse(report).iter('testsuite'):
        for name in count:
            count[name] += int(suite.get(name, 0))
    failed = count['failures'] + count['errors']
    passed = count['tests'] - failed - count['skipped']
    return {'passed': passed, 'failed': failed, 'skipped': count['skipped']}


def judged(latency: Mapping[str, Any], tests: Mapping[str, int]) -> list[dict[str, Any]]:
    """Give what was found: what it is, its goal, its value, and whether that is met.

    None is neither: where there is no goal, or none for this card.
    """

    def at_least(goal: float) -> tuple[str, Callable[[float], bool]]:
        return f'≥ {goal:g}', lambda value: value >= goal

    def at_most(goal: float) -> tuple[str, Callable[[float], bool]]:
        return f'≤ {goal:g}', lambda value: value <= goal

    fast_card = any(name in latency['machine'].split(';')[0] for name in FASTEST_CARDS)
    no_goal: Any = ('', None)
    values = latency['ratios'] | {'ours_ms': latency['ours_ms']}
    goals = {
        'published_over_ours': at_least(8),
        'temporal_over_per_frame': at_most(1.1),
        'four_cameras_over_one': at_most(2.2),
        'ours_ms': at_most(4) if fast_card else no_goal,
        'roofline_share': no_goal,
    }
    found: list[dict[str, Any]] = [
        {
            'what': 'tests failed',
            'goal': '0',
            'value': tests['failed'],
            'met': tests['failed'] == 0 and tests['passed'] > 0,
        }
    ]
    for what, (goal, is_met) in goals.items():
        met = is_met(values[what]) if is_met else None
        found.append({'what': what, 'goal': goal, 'value': values[what], 'met': met})
    return found


def as_markdown(report: Mapping[str, Any]) -> str:
    latency, tests = report['latency'], report['tests']
    said = ', '.join(f'{n} {what}' for what, n in tests.items())
    lines = [
        f'{latency["date"]}: {latency["machine"]}.',
        f'{latency["model"]} at {latency["size"]} in {latency["picked"][1]}; tests: {said}.',
        '',
        '| | goal | here | |',
        '|---|---|---|---|',
    ]
    words = {True: 'met', False: 'missed', None: ''}
    for one in report['found']:
        value = f'{one["value"]:.3g}'
        lines.append(f'| {one["what"]} | {one["goal"]} | {value} | {words[one["met"]]} |')
    return '\n'.join([*lines, '', report['verdict'], ''])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='gpu', description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--output', type=Path, default=Path('gpu_output'), help='a folder')
    output: Path = parser.parse_args(argv).output.resolve()
    if text := missing_gpu():
        return _cannot_run(text)
    if text := missing_packages():
        if Path(sys.prefix).resolve() == _VENV.resolve():
            return _cannot_run(text)
        print(f'{text} Setting up .venv.', flush=True)
        if subprocess.run(['make', 'setup', f'PYTHON={sys.executable}'], cwd=ROOT).returncode:
            return _cannot_run('an environment is missing: `make setup` says above why.')
        python = str(_VENV / 'bin' / 'python')
        os.execv(python, [python, '-m', 'benchmarks.gpu', '--output', str(output)])
    output.mkdir(parents=True, exist_ok=True)
    tests = run_tests(output)
    times = output / 'latency.json'
    command = [sys.executable, '-m', 'benchmarks.latency', '--device', 'cuda', '--json', times]
    if subprocess.run([*map(str, command)], cwd=ROOT).returncode:
        return _cannot_run('figures are missing: benchmarks.latency says above why.')
    report = reported(json.loads(times.read_text()), tests)
    (output / 'gpu.json').write_text(json.dumps(report, indent=1) + '\n')
    text = as_markdown(report)
    (output / 'gpu.md').write_text(text)
    print(f'\n{text}\nWritten: {output}/gpu.json and gpu.md.')
    return 0 if all(one['met'] is not False for one in report['found']) else 1


def reported(latency: Mapping[str, Any], tests: Mapping[str, int]) -> dict[str, Any]:
    found = judged(latency, tests)
    missed = [one['what'] for one in found if one['met'] is False]
    verdict = f'Missed: {", ".join(missed)}.' if missed else 'All goals are met.'
    return {'verdict': verdict, 'found': found, 'tests': tests, 'latency': latency}


def _cannot_run(text: str) -> int:
    print(f'make gpu: {text}', file=sys.stderr)
    return 2


if __name__ == '__main__':
    sys.exit(main())
