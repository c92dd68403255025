# SPDX-License-Identifier: Apache-2.0
"""What the anchors of one camera have said, and which of them contradict its network for long."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from smoothdino_model.scale.measurement import Measurement

if TYPE_CHECKING:
    from smoothdino_model.pipeline import DepthResult

_LASTING_NS = 3_000_000_000


class AnchorWatch:
    """Sees each frame's measurements; times are those of the frames' stamps."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._said: dict[str, tuple[int, Measurement]] = {}  # the latest of each, and when
        self._why_none: dict[str, str] = {}
        self._against_ns: dict[str, int] = {}  # since when
        self._stamp_ns = 0
        self._scale = 1.0

    @property
    def age_s(self) -> float:
        """The time since an anchor said something, NaN where none ever did."""
        ages = [self._stamp_ns - at_ns for at_ns, _ in self._said.values()]
        return min(ages) / 1e9 if ages else math.nan

    def see(self, stamp_ns: int, result: DepthResult, *, most: float) -> dict[str, Measurement]:
        """Take a frame; give what has been off by more than a factor ``most`` for three seconds.

        A frame in which an anchor says nothing changes nothing. 0 is no limit.
        """
        self._stamp_ns, self._scale = stamp_ns, result.anchor_scale
        for name, one in result.measured.items():
            self._why_none[name] = one.why_none
            if one.why_none:
                continue
            self._said[name] = stamp_ns, one
            if most > 0 and abs(one.log_scale) > math.log(most):
                self._against_ns.setdefault(name, stamp_ns)
            else:
                self._against_ns.pop(name, None)
        return {
            name: self._said[name][1]
            for name, since_ns in self._against_ns.items()
            if stamp_ns - since_ns >= _LASTING_NS
        }

    def values(self) -> Mapping[str, str]:
        """For /diagnostics; of every anchor the same keys, empty where nothing is known."""
        values = {'anchor scale': f'{self._scale:.3f}'}
        for name in self._names:
            at_ns, one = self._said.get(name, (0, None))
            values |= {
                f'{name} scale': f'{one.scale:.3f}' if one else '',
                f'{name} spread': f'{one.spread:.3f}' if one else '',
                f'{name} inliers': f'{one.inliers} of {one.samples}' if one else '',
                f'{name} age [s]': f'{(self._stamp_ns - at_ns) / 1e9:.1f}' if one else '',
                f'{name} why none': self._why_none.get(name, ''),
            }
        return values
