# SPDX-License-Identifier: Apache-2.0
"""The latest messages of a sensor, of which the one nearest to an image counts."""

from __future__ import annotations

from typing import Generic, TypeVar

_WITHIN_NS = 250_000_000  # of the image: a robot at 1 m/s is elsewhere by then

T = TypeVar('T')


class Latest(Generic[T]):
    """Keeps some; one thread may add while another asks."""

    def __init__(self, name: str, kept: int) -> None:
        self._name, self._kept = name, kept
        self._stamped: tuple[tuple[int, T], ...] = ()  # latest first; replaced whole

    def add(self, stamp_ns: int, one: T) -> None:
        self._stamped = ((stamp_ns, one), *self._stamped[: self._kept - 1])

    def nearest(self, at_ns: int) -> T:
        """Raises ValueError, in words, where none is near a time."""
        stamped = self._stamped
        if not stamped:
            raise ValueError(f'no {self._name} has come')
        stamp_ns, one = min(stamped, key=lambda each: abs(each[0] - at_ns))
        apart_ns = at_ns - stamp_ns
        if abs(apart_ns) > _WITHIN_NS:
            raise ValueError(
                f'the nearest {self._name} is {abs(apart_ns) / 1e9:.1f} s '
                f'{"older" if apart_ns > 0 else "younger"} than the image: do their clocks agree?'
            )
        return one
