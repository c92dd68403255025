# SPDX-License-Identifier: Apache-2.0
"""DDS domains of one's own: demos, benchmarks and tests at once must not hear each other."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from pathlib import Path
from typing import IO

DOMAINS = range(1, 101)  # those whose ports every system leaves free
_held: list[IO] = []  # for as long as this process lives


def own_domain() -> str:
    """Give a ROS_DOMAIN_ID that no other process of this user asks for here until this one ends.

    Raises RuntimeError where all are taken.
    """
    folder = Path(tempfile.gettempdir()) / f'smoothdino_ros_domains_{os.getuid()}'
    folder.mkdir(exist_ok=True)
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        lock = (folder / str(domain)).open('w')
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        return str(domain)
    raise RuntimeError(f'all {len(DOMAINS)} DDS domains are taken: are old processes alive?')
