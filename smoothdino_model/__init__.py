# SPDX-License-Identifier: Apache-2.0
"""Metric depth from one camera, steady from frame to frame.

The public names stand in ``__init__.pyi``, for people, type checkers and this file alike. They are
imported on first use: torch and transformers take seconds to load, and a camera or a command line
that only reads images needs neither.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

_HOME_OF = {
    alias.name: str(line.module)
    for line in ast.parse(Path(__file__).with_suffix('.pyi').read_text(encoding='utf-8')).body
    if isinstance(line, ast.ImportFrom)
    for alias in line.names
}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_HOME_OF[name]), name)
