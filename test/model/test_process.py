# SPDX-License-Identifier: Apache-2.0
"""Threads of the process: as many as it may use, and none that spins."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from smoothdino_model.engines.process import (
    chosen_threads,
    cpu_quota,
    signals_wait,
    sleep_while_waiting,
)

WAITING = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')
FREE = {'variable': '', 'cores': 8, 'quota': None}


@pytest.mark.parametrize(
    ('wanted', 'machine', 'number', 'why'),
    [
        (0, {}, 8, 'each core'),
        (3, {'quota': 1.5, 'variable': '5'}, 3, 'asked for'),
        (0, {'quota': 1.5, 'variable': '5'}, 5, 'OMP_NUM_THREADS'),
        (0, {'variable': '4,2'}, 4, 'OMP_NUM_THREADS'),
        (0, {'variable': 'many'}, 8, 'each core'),
        (0, {'variable': '0'}, 8, 'each core'),
        (0, {'quota': 1.5}, 2, '1.5 cores'),
        (0, {'quota': 0.2}, 1, '0.2 cores'),
        (0, {'quota': 2.0}, 2, '2 cores'),
        (0, {'quota': 16.0}, 8, 'each core'),
        (0, {'cores': 1, 'quota': 4.0}, 1, 'each core'),
    ],
)
def test_as_many_threads_as_there_are_cores_to_be_had(wanted, machine, number, why):
    got, said = chosen_threads(wanted, **FREE | machine)
    assert got == number
    assert why in said


def test_a_number_of_threads_below_zero_is_refused_in_words():
    with pytest.raises(ValueError, match=r'^threads: expected 0 \(chosen\) or more, got -1$'):
        chosen_threads(-1, **FREE)


@pytest.mark.parametrize(
    ('groups', 'files', 'quota'),
    [
        # Version 2: on a host, where a service lies in a slice that is limited as well.
        (
            '0::/robot.slice/depth.service',
            {
                'cpu.max': 'max 100000',
                'robot.slice/cpu.max': '150000 100000',
                'robot.slice/depth.service/cpu.max': '400000 100000',
            },
            1.5,
        ),
        # In a container, whose own group is all that is seen.
        ('0::/', {'cpu.max': '50000 100000'}, 0.5),
        ('0::/', {'cpu.max': 'max 100000'}, None),
        ('0::/', {}, None),
        # Version 1, and in a container that is told the path of the host.
        (
            '4:cpu,cpuacct:/docker/1f\n3:memory:/docker/1f',
            {'cpu,cpuacct/cpu.cfs_quota_us': '250000', 'cpu,cpuacct/cpu.cfs_period_us': '100000'},
            2.5,
        ),
        (
            '1:cpu:/a\n0::/',
            {
                'cpu/cpu.cfs_quota_us': '-1',
                'cpu/cpu.cfs_period_us': '100000',
                'cpu/a/cpu.cfs_quota_us': '200000',
                'cpu/a/cpu.cfs_period_us': '100000',
                'unified/cpu.max': 'max 100000',
            },
            2.0,
        ),
        # Both at once: the lower one holds. Of another controller than cpu nothing counts.
        (
            '2:cpuset:/b\n1:cpu:/\n0::/b',
            {
                'cpu/cpu.cfs_quota_us': '300000',
                'cpu/cpu.cfs_period_us': '100000',
                'unified/b/cpu.max': '100000 100000',
                'cpuset/b/cpu.cfs_quota_us': '1',
                'cpuset/b/cpu.cfs_period_us': '100000',
            },
            1.0,
        ),
        ('0::/', {'cpu.max': 'nonsense'}, None),
        ('nonsense', {'cpu.max': '50000 100000'}, None),
    ],
)
def test_the_limit_of_control_groups_is_found(tmp_path, groups, files, quota):
    (tmp_path / 'cgroup').write_text(groups + '\n')
    mounted = tmp_path / 'mounted'
    for name, text in files.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(text + '\n')
    assert cpu_quota(tmp_path / 'cgroup', mounted) == quota


def test_where_there_are_no_control_groups_nothing_limits(tmp_path):
    assert cpu_quota(tmp_path / 'cgroup', tmp_path) is None


def of_a_process(code: str, **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if k not in (*WAITING, 'OMP_NUM_THREADS')}
    return subprocess.run(
        [sys.executable, '-c', code],
        env=kept | environment,
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    ).stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='the system knows no affinity')
def test_a_process_of_one_core_works_with_one_thread():
    code = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from smoothdino_model.engines.process import use_threads
import torch
use_threads(0)
print(torch.get_num_threads())"""
    assert of_a_process(code) == '1'


@pytest.mark.parametrize('set_by_user', [*WAITING, ''])
def test_how_threads_wait_is_for_the_user_to_say(monkeypatch, set_by_user):
    for name in WAITING:
        monkeypatch.setenv(name, '7')  # so that what is set here is undone
        monkeypatch.delenv(name)
    if set_by_user:
        monkeypatch.setenv(set_by_user, 'theirs')
    sleep_while_waiting()
    found = {name: os.environ[name] for name in WAITING if name in os.environ}
    assert found == ({set_by_user: 'theirs'} if set_by_user else {'OMP_WAIT_POLICY': 'passive'})


@pytest.mark.slow
def test_importing_the_library_sets_nothing():
    code = """
import os
before = dict(os.environ)
import smoothdino_model.pipeline, smoothdino_model.cli.main
ours = ('OMP_', 'GOMP_', 'KMP_', 'THP_')
print([name for name in os.environ.keys() - before if name.startswith(ours)])"""
    assert of_a_process(code) == '[]'


@pytest.mark.parametrize('ignored', [False, True])
def test_signals_wait_for_imports_unless_they_are_ignored(ignored):
    was = signal.signal(signal.SIGTERM, signal.SIG_IGN if ignored else signal.SIG_DFL)
    done = []
    try:
        with nullcontext() if ignored else pytest.raises(KeyboardInterrupt):
            with signals_wait(signal.SIGTERM):
                signal.raise_signal(signal.SIGTERM)
                done.append('imports')
        assert signal.getsignal(signal.SIGTERM) == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGTERM, was)
    assert done == ['imports']
