# SPDX-License-Identifier: Apache-2.0
"""What a call costs, in figures that no other load of the machine changes."""

import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Work:
    calls: int = 0  # of functions, in Python and from it
    peak_bytes: int = 0  # of Python, numpy and, where it makes numpy's arrays, OpenCV


@contextmanager
def counted_work() -> Iterator[Work]:
    """Count what happens in this thread inside the block; read it behind the block."""
    work = Work()

    def count(_frame: object, event: str, _argument: object) -> None:
        work.calls += event in ('call', 'c_call')

    tracemalloc.start()
    sys.setprofile(count)
    try:
        yield work
    finally:
        sys.setprofile(None)
        work.peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
