# SPDX-License-Identifier: Apache-2.0
"""DDS domains of one's own: tests that run at the same time must not hear each other."""

import fcntl
import random
import tempfile
from pathlib import Path
from typing import IO

DOMAINS = range(1, 101)  # those whose ports every system leaves free
_held: list[IO] = []  # for as long as this process lives


def own_domain() -> str:
    """A ROS_DOMAIN_ID that no other test process on this machine has until this one ends."""
    folder = Path(tempfile.gettempdir()) / 'smoothdino_ros_domains'
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
    raise RuntimeError(f'all {len(DOMAINS)} DDS domains are taken: are old test processes alive?')
