# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear under their name only when they are whole."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_begun: set[Path] = set()  # hidden folders that are not cleared yet


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a place to write a file or a folder at, which stands at ``path`` when the block ends.

    The place has the name of ``path`` and lies in a hidden folder beside it. A block that raises
    leaves nothing; a process that is killed leaves the hidden folder, and nothing at ``path``.
    A file at ``path`` is replaced; a folder that is not empty makes it raise OSError.
    """
    hidden = path.with_name(f'.{path.name[:100]}.{secrets.token_hex(4)}.partial')
    # First of all: Ctrl-C may come between any two steps, before those of `finally` as well.
    _begun.add(hidden)
    try:
        hidden.mkdir()
        place = hidden / path.name
        yield place
        os.replace(place, path)
    finally:
        _clear(hidden)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there, in place of one that is."""
    with written_whole(path) as place:
        place.write_bytes(data)


def clear_partial(folder: Path) -> None:
    """Remove what killed processes left in a folder that none writes to now."""
    for hidden in folder.glob('.*.partial'):
        shutil.rmtree(hidden, ignore_errors=True)


def _clear(hidden: Path) -> None:
    shutil.rmtree(hidden, ignore_errors=True)
    _begun.discard(hidden)


@atexit.register
def _clear_interrupted() -> None:
    for hidden in tuple(_begun):
        _clear(hidden)
