# SPDX-License-Identifier: Apache-2.0
"""The scale over time: anchors weighed by their spread, and no more believed than they can know.

An anchor sees a part of a picture that is bent, and a height was read off a ruler: of the scale
it is itself unsure by its spread. What it says counts as far as it goes beyond that, so that a
network that is right already is left alone. What comes as a surprise may be something else that
was measured, and has to last. A table that is believed a little raises the scale a little, and
may not be believed the more for it: doubt is measured from what is confirmed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from smoothdino_model.scale.measurement import Measurement

SCALE_RANGE = (0.25, 4.0)  # of what anchors may make of depth, by default
_PRIOR = 0.6  # standard deviation of the logarithm: how far off networks are in scenes unseen
_DRIFT = 0.2  # of the logarithm, over the root of a second: another view is another scale
_SURPRISE = 3.0  # standard deviations: beyond, it is something else that was measured
_PATIENCE_NS = 3_000_000_000  # for which a surprise has to last to be believed
_ALIKE = 0.15  # of the logarithm: what is one surprise
_MOST_STEP = math.log(1.1)  # from frame to frame


@dataclass(frozen=True)
class ScaleState:
    """What is believed of one camera's scale; replaced whole at each frame.

    ``log_scale`` and ``variance`` are the Kalman filter's, of the logarithm; ``spread`` is that of
    what was last measured. ``confirmed`` is the most of it that is beyond doubt: measured without
    any, or a surprise that has lasted. ``log_given`` is what depth was multiplied by. ``surprise``
    is a scale that has been measured since ``surprised_ns`` and is not believed yet.
    """

    stamp_ns: int
    log_scale: float = 0.0
    variance: float = _PRIOR**2
    spread: float = math.inf
    confirmed: float = 0.0
    log_given: float = 0.0
    surprise: float | None = None
    surprised_ns: int = 0

    @property
    def scale(self) -> float:
        return math.exp(self.log_given)


def filtered(
    state: ScaleState | None,
    measurements: Iterable[Measurement],
    *,
    stamp_ns: int,
    least: float,
    most: float,
) -> ScaleState:
    """Give the state after a frame's measurements, of which those that say nothing do not count.

    None starts afresh. The scale stays within ``least`` and ``most``, and but for the first frame
    changes by at most 10 % from one to the next; where nothing is measured it stays.
    """
    now = _drifted(state, stamp_ns) if state else ScaleState(stamp_ns)
    found = [one for one in measurements if not one.why_none]
    if found:
        certain = [one for one in found if one.doubt == math.inf]
        reference = _together(certain).log_scale if certain else now.confirmed
        likely = [
            _the_less_the_higher(one, reference)
            for one in found
            if one.log_scale - reference <= one.doubt
        ]
        before = now
        now = _believing(before, _together(likely or found), doubtful=not likely)
        lasted = not likely and now.log_scale != before.log_scale
        confirmed = now.log_scale if certain or lasted else min(now.confirmed, now.log_scale)
        now = replace(now, confirmed=confirmed)
    wanted = min(max(_beyond_its_spread(now), math.log(least)), math.log(most))
    if state is not None:
        step = wanted - state.log_given
        wanted = state.log_given + min(max(step, -_MOST_STEP), _MOST_STEP)
    return replace(now, log_given=wanted)


def _drifted(state: ScaleState, stamp_ns: int) -> ScaleState:
    passed_s = max(stamp_ns - state.stamp_ns, 0) / 1e9
    variance = min(state.variance + _DRIFT**2 * passed_s, _PRIOR**2)
    return replace(state, stamp_ns=stamp_ns, variance=variance)


def _the_less_the_higher(one: Measurement, reference: float) -> Measurement:
    """A floor that rises step by step is as doubtful as one that is high at once."""
    if one.doubt == math.inf:
        return one
    return replace(one, spread=math.hypot(one.spread, max(0.0, one.log_scale - reference)))


def _together(found: Sequence[Measurement]) -> Measurement:
    """One measurement out of several; where they contradict each other, of a larger spread."""
    weights = [1 / one.spread**2 for one in found]
    total = sum(weights)
    pairs = list(zip(weights, found, strict=True))
    middle = sum(weight * one.log_scale for weight, one in pairs) / total
    apart = sum(weight * (one.log_scale - middle) ** 2 for weight, one in pairs) / total
    return Measurement(middle, math.sqrt(1 / total + apart))


def _believing(state: ScaleState, measured: Measurement, *, doubtful: bool) -> ScaleState:
    """The state after a measurement: at once, or where it surprises once it has lasted."""
    variance, news = measured.spread**2, measured.log_scale - state.log_scale
    gain = state.variance / (state.variance + variance)
    if doubtful or abs(news) > _SURPRISE * math.sqrt(state.variance + variance):
        lasts = state.surprise is not None and abs(measured.log_scale - state.surprise) <= _ALIKE
        if not lasts:
            return replace(state, surprise=measured.log_scale, surprised_ns=state.stamp_ns)
        if state.stamp_ns - state.surprised_ns < _PATIENCE_NS:
            return state
        gain = 1.0
    return replace(
        state,
        log_scale=state.log_scale + gain * news,
        variance=gain * variance,
        spread=measured.spread,
        surprise=None,
    )


def _beyond_its_spread(state: ScaleState) -> float:
    """What is believed, less what chance may have added (James and Stein 1961, positive part)."""
    if abs(state.log_scale) <= state.spread:
        return 0.0
    return state.log_scale - state.spread**2 / state.log_scale
