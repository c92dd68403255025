# SPDX-License-Identifier: Apache-2.0
"""One parameter of the node: its description and range, and a value held against them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, field
from typing import Any


def parameter(
    default: Any,
    description: str,
    *,
    within: tuple[float, float] | None = None,
    fixed: str = '',
) -> Any:
    """A dataclass field; fixed says why it cannot change while the node is configured.

    within is the least and the most that a number may be.
    """
    metadata = {'description': description, 'within': within, 'fixed': fixed}
    return field(default=default, metadata=metadata)


def checked(f: Field[Any], value: object) -> Any:
    """The value by itself as the type of the field's default; raises ValueError, one sentence."""
    right = typed(f, value)
    check_within(f, right)
    return right


def typed(f: Field[Any], value: object) -> Any:
    """The value as the type of the field's default; an integer will do for a float."""
    if isinstance(f.default, tuple):
        if value is None:  # what a params file with an empty list leaves behind
            return ()
        if not isinstance(value, str | bytes) and isinstance(value, Iterable):
            names = tuple(value)
            if all(isinstance(name, str) for name in names):
                return () if names == ('',) else names  # ['']: empty on a command line
        raise wrong(f.name, value, 'a list of names')
    wanted = type(f.default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        words = {bool: 'true or false', int: 'an integer', float: 'a number', str: 'a text'}
        raise wrong(f.name, value, words[wanted])
    return value


def check_within(f: Field[Any], value: Any) -> None:
    if f.metadata['within']:
        least, most = f.metadata['within']
        if not least <= value <= most:
            raise wrong(f.name, value, f'{least:g} to {most:g}')


def wrong(name: str, value: object, expected: str) -> ValueError:
    shown = list(value) if isinstance(value, tuple) else value
    return ValueError(f'Parameter {name}: expected {expected}, got {shown!r}.')
