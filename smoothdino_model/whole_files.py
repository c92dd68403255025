# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear under their name only when they are whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a place to write a file or a folder at, which stands at ``path`` when the block ends.

    The place has the name of ``path`` and lies in a hidden folder beside it. A block that raises
    leaves nothing; a process that is killed leaves the hidden folder, and nothing at ``path``.
    A file at ``path`` is replaced; a folder that is not empty makes it raise OSError.
    """
    hidden = path.with_name(f'.{path.name[:100]}.{secrets.token_hex(4)}.partial')
    try:
        hidden.mkdir()
        place = hidden / path.name
        yield place
        os.replace(place, path)
    finally:
        try:
            shutil.rmtree(hidden, ignore_errors=True)
        except KeyboardInterrupt:  # in the midst of it: first the rest
            shutil.rmtree(hidden, ignore_errors=True)
            raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there, in place of one that is."""
    with written_whole(path) as place:
        place.write_bytes(data)
