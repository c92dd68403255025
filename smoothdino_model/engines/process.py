# SPDX-License-Identifier: Apache-2.0
"""What belongs to a whole process: threads, memory and signals. Commands set it, imports do not.

Without torch, because half of it has to stand in the environment before torch is imported.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_log = logging.getLogger(__name__)

# Each says how the threads of OpenMP wait; the last two are of GNU's and of Intel's or LLVM's.
_WAITING = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')


def sleep_while_waiting() -> None:
    """Let threads of torch that have nothing to do sleep; to be called before it is imported.

    By themselves they spin for the others, which on a machine that does other work have no core
    to be done on. What the user has set stays.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ['OMP_WAIT_POLICY'] = 'passive'


def sleeps_while_waiting() -> bool:
    """Whether threads of this process that have nothing to do are to sleep."""
    return os.environ.get('OMP_WAIT_POLICY', '').lower() == 'passive'


@contextlib.contextmanager
def signals_wait(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals wait while something is imported, and raise KeyboardInterrupt then.

    An exception in the midst of torch's start in C++ ends the process with an abort.
    """
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():  # no other may, nor is interrupted
        heard = [one for one in numbers if signal.getsignal(one) != signal.SIG_IGN]
        before = {one: signal.signal(one, lambda number, _: came.append(number)) for one in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def large_pages() -> None:
    """Let this process have memory in large pages; to be called before its first large tensor.

    Maps of the decoder are 100 MB. In pages of 4 KB, fetched anew for every one of them, enlarging
    a map takes four times as long.
    """
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')


def use_threads(wanted: int) -> None:
    """Let torch, and what takes its number of threads, work on ``wanted`` ones; 0 chooses."""
    import torch

    number, why = chosen_threads(
        wanted,
        variable=os.environ.get('OMP_NUM_THREADS', ''),
        cores=usable_cores(),
        quota=cpu_quota(),
    )
    torch.set_num_threads(number)
    _log.info('threads on the CPU: %d, %s', number, why)


def chosen_threads(
    wanted: int, *, variable: str, cores: int, quota: float | None
) -> tuple[int, str]:
    """Give the number of threads and why: as many as there are cores to be had.

    ``variable`` is OpenMP's, by which the user may have said how many, perhaps for each level of
    nesting. ``quota`` is the processor time that the process may take, in cores. A part of a core
    counts as one: with a thread less it would lie idle.
    """
    if wanted < 0:
        raise ValueError(f'threads: expected 0 (chosen) or more, got {wanted}')
    if wanted:
        return wanted, 'as asked for'
    outermost = variable.split(',')[0].strip()
    if outermost.isdecimal() and int(outermost):
        return int(outermost), 'as OMP_NUM_THREADS says'
    if quota is not None and quota < cores:
        return max(math.ceil(quota), 1), f'for the {quota:g} cores that its cgroup may take'
    return cores, f'one for each core that it may run on, of {os.cpu_count()}'


def usable_cores() -> int:
    """Count the cores that the process may run on."""
    if hasattr(os, 'sched_getaffinity'):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(
    cgroups: Path = Path('/proc/self/cgroup'), mounted: Path = Path('/sys/fs/cgroup')
) -> float | None:
    """Give the cores' worth of time that the process may take, None where nothing limits it.

    ``cgroups`` names its control groups, whose files lie below ``mounted``: version 2's, version
    1's, or both. A limit holds for all groups within.
    """
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:
        return None  # not on Linux
    groups = [line.split(':', 2) for line in lines if line.count(':') >= 2]
    limits = [
        _limit(directory)
        for _, controllers, path in groups
        for directory in _directories(controllers, path, mounted)
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def _directories(controllers: str, path: str, mounted: Path) -> Iterator[Path]:
    """Give those of a group and of all around it, as far as they can be seen from here.

    In a container the path may be that of the host, and the mount the container's own: then only
    the last of them is there.
    """
    if controllers:  # version 1
        names = [controllers, 'cpu'] if 'cpu' in controllers.split(',') else []
    else:  # version 2, by itself or beside version 1
        names = ['', 'unified']
    within = PurePosixPath(path.lstrip('/'))
    for name in names:
        yield from (mounted / name / group for group in (within, *within.parents))


def _limit(group: Path) -> float | None:
    """In cores; None where a group has none, or is not there."""
    try:
        if (group / 'cpu.max').exists():  # version 2: '150000 100000', or 'max 100000'
            quota, period = (group / 'cpu.max').read_text().split()
        else:
            quota = (group / 'cpu.cfs_quota_us').read_text()
            period = (group / 'cpu.cfs_period_us').read_text()
        limit = int(quota) / int(period)
    except (OSError, ValueError):
        return None
    return limit if limit > 0 else None  # version 1 writes -1 for none
