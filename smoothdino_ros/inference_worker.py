# SPDX-License-Identifier: Apache-2.0
"""Latest-frame slots, one per camera, and the one thread that answers them.

The callbacks of the node only put a message into its slot, so the executor stays free; a message
that is still waiting when the next one comes is dropped, so nothing stale is ever worked on. All
messages of one kind that wait at the same moment become one batch. Nothing here knows ROS, or what
a message is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

_log = logging.getLogger(__name__)

_REMEMBERED = 300  # times kept for rates and latencies
_LOOK_AGAIN_S = 0.1  # at a camera that was not ready
_MOST_SKIPPED = 4096  # stamps kept while a step lasts: minutes of any camera


@dataclass(frozen=True)
class Waiting:
    """A message in its slot; `skipped_ns` are the stamps dropped since the last one stepped."""

    message: Any
    stamp_ns: int
    received_s: float  # monotonic
    skipped_ns: tuple[int, ...] = ()


@dataclass(frozen=True)
class CameraCounts:
    """What became of the messages of one camera since the worker was made.

    received = unwanted + dropped + overdue + rejected + failed + answered + those waiting or in
    work.
    """

    received: int = 0
    unwanted: int = 0  # nobody would have seen the answer
    dropped: int = 0  # for a later one, or by the rate limit
    overdue: int = 0  # older than max_latency_s before their answer could be published
    rejected: int = 0  # could not be read
    failed: int = 0  # in a batch that raised
    answered: int = 0
    last_rejection: str = ''
    last_failure: str = ''
    last_received_s: float | None = None  # monotonic
    received_hz: float = 0.0
    answered_hz: float = 0.0
    latencies_s: tuple[float, ...] = ()  # from callback to published, the latest ones

    @property
    def ended(self) -> tuple[int, ...]:
        """How many ended how; dropped ones only made way for a later one."""
        return self.unwanted, self.overdue, self.rejected, self.failed, self.answered


class Camera(Protocol):
    """What the worker's thread asks of a camera."""

    def ready(self) -> bool:
        """Tell whether its message may be taken yet; until then it waits in its slot."""

    def read(self, waiting: Waiting) -> Any:
        """Give a frame; a ValueError rejects the message with its text."""

    def kind(self, frame: Any) -> Hashable:
        """Frames of one kind are a batch, answered before the next batch is begun."""

    def publish(self, waiting: Waiting, frame: Any, result: Any) -> None: ...


class _Slot:
    """A camera's latest message, and what became of those before it."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.waiting: Waiting | None = None
        self.skipped_ns: deque[int] = deque(maxlen=_MOST_SKIPPED)
        self.due_s = 0.0  # when the rate limit lets the next message pass
        self.counts = CameraCounts()
        self.received_s: deque[float] = deque(maxlen=_REMEMBERED)
        self.answered_s: deque[float] = deque(maxlen=_REMEMBERED)
        self.latencies_s: deque[float] = deque(maxlen=_REMEMBERED)

    def count(self, **new: Any) -> None:
        self.counts = replace(self.counts, **new)


class InferenceWorker:
    """`offer` messages from any thread between `start` and `stop`; one thread answers them.

    step(frames by camera) -> results by camera; any exception drops that batch.
    prepare(frames by camera) makes ready for batches like this one, where there is something to
    make, and tells so; meanwhile later messages may have come, and those are answered.
    report(text) is called, from either thread, for each message that is rejected, fails or is
    overdue.
    """

    def __init__(
        self,
        cameras: Mapping[str, Camera],
        *,
        step: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        prepare: Callable[[Mapping[str, Any]], bool] = lambda frames: False,
        report: Callable[[str], None],
        max_rate_hz: float = 0.0,
        max_latency_s: float = 0.0,
    ) -> None:
        # These may be set at any time; 0 means no limit.
        self.max_rate_hz, self.max_latency_s = max_rate_hz, max_latency_s
        self._step, self._prepare, self._report = step, prepare, report
        self._slots = {name: _Slot(camera) for name, camera in cameras.items()}
        self._changed = threading.Condition()
        self._before_next: list[Callable[[], None]] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let a step in progress end, leave what waits, and join the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def offer(self, camera: str, message: Any, *, stamp_ns: int, wanted: bool = True) -> None:
        """Put a message into its camera's slot, in place of one that still waits there.

        One that is not wanted is only counted; unlike a dropped one it bridges no gap.
        """
        now_s = time.monotonic()
        with self._changed:
            c = self._slots[camera]
            self._count_received(c, now_s)
            if not wanted:
                c.count(unwanted=c.counts.unwanted + 1)
                return
            if self.max_rate_hz > 0 and now_s < c.due_s:
                c.skipped_ns.append(stamp_ns)
                c.count(dropped=c.counts.dropped + 1)
                return
            if self.max_rate_hz > 0:
                # A message may come up to half a period early, so that jitter of a camera at just
                # this rate costs no frames; the rate holds over any longer time.
                period_s = 1 / self.max_rate_hz
                c.due_s = max(c.due_s + period_s, now_s + period_s / 2)
            if c.waiting is not None:
                c.skipped_ns.append(c.waiting.stamp_ns)
                c.count(dropped=c.counts.dropped + 1)
            c.waiting = Waiting(message, stamp_ns, now_s)
            self._changed.notify()

    def reject(self, camera: str, reason: str) -> None:
        """Count a message that is not even worth a slot."""
        with self._changed:
            c = self._slots[camera]
            self._count_received(c, time.monotonic())
        self._reject(camera, reason)

    def before_next_batch(self, action: Callable[[], None]) -> None:
        """Run an action in the thread, before the next batch is taken."""
        with self._changed:
            self._before_next.append(action)
            self._changed.notify()

    def counts(self) -> dict[str, CameraCounts]:
        with self._changed:
            now_s = time.monotonic()
            return {
                name: replace(
                    c.counts,
                    received_hz=_rate_hz(c.received_s, now_s),
                    answered_hz=_rate_hz(c.answered_s, now_s),
                    latencies_s=tuple(c.latencies_s),
                )
                for name, c in self._slots.items()
            }

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._stopping or self._before_next or self._takable()):
                    held = any(c.waiting for c in self._slots.values())
                    self._changed.wait(_LOOK_AGAIN_S if held else None)
                if self._stopping:
                    return
                actions, self._before_next = self._before_next, []
            try:
                for action in actions:
                    action()
            except Exception as error:  # the thread outlives whatever it is given to do
                _log.debug('An action before a step failed:', exc_info=True)
                self._report(f'An action before a step failed: {_in_words(error)}')
            self._answer(self._take())

    def _takable(self) -> dict[str, Waiting]:
        return {
            name: c.waiting
            for name, c in self._slots.items()
            if c.waiting is not None and c.camera.ready()
        }

    def _take(self) -> dict[str, Waiting]:
        with self._changed:
            taken = self._takable()
            for name, waiting in taken.items():
                c = self._slots[name]
                taken[name] = replace(waiting, skipped_ns=tuple(c.skipped_ns))
                c.waiting = None
                c.skipped_ns.clear()
            return taken

    def _answer(self, taken: dict[str, Waiting]) -> None:
        batches: dict[Hashable, dict[str, Any]] = {}
        for name, waiting in taken.items():
            if self._is_overdue(name, waiting):  # before it costs a step
                self._put_back(name, (*waiting.skipped_ns, waiting.stamp_ns))
                continue
            try:
                camera = self._slots[name].camera
                frame = camera.read(waiting)
                batches.setdefault(camera.kind(frame), {})[name] = frame
            except ValueError as error:
                self._reject(name, str(error))
                self._put_back(name, waiting.skipped_ns)
            except Exception as error:
                self._fail(name, waiting, error)
        for frames in batches.values():
            self._answer_batch({name: taken[name] for name in frames}, frames)

    def _answer_batch(self, batch: dict[str, Waiting], frames: dict[str, Any]) -> None:
        try:
            if self._prepare(frames):
                self._return(batch)
                return
            results = self._step(frames)
        except Exception as error:
            for name, waiting in batch.items():
                self._fail(name, waiting, error)
            return
        for name, waiting in batch.items():
            if self._is_overdue(name, waiting):
                continue
            try:
                self._slots[name].camera.publish(waiting, frames[name], results[name])
            except Exception as error:
                self._fail(name, waiting, error, stepped=True)
                continue
            with self._changed:
                c, now_s = self._slots[name], time.monotonic()
                c.count(answered=c.counts.answered + 1)
                c.answered_s.append(now_s)
                c.latencies_s.append(now_s - waiting.received_s)

    def _return(self, batch: dict[str, Waiting]) -> None:
        """Let messages wait again, but for those that a later one has followed."""
        for name, waiting in batch.items():
            with self._changed:
                c = self._slots[name]
                if c.waiting is None and not c.skipped_ns:
                    c.waiting = waiting
                    c.skipped_ns.extend(waiting.skipped_ns)
                    continue
                c.count(dropped=c.counts.dropped + 1)
            self._put_back(name, (*waiting.skipped_ns, waiting.stamp_ns))

    def _count_received(self, c: _Slot, now_s: float) -> None:
        c.count(received=c.counts.received + 1, last_received_s=now_s)
        c.received_s.append(now_s)

    def _reject(self, camera: str, reason: str) -> None:
        with self._changed:
            c = self._slots[camera]
            c.count(rejected=c.counts.rejected + 1, last_rejection=reason)
        self._report(f'Rejected an image{_of(camera)}: {reason}')

    def _is_overdue(self, camera: str, waiting: Waiting) -> bool:
        """By the time of receipt: stamps are of another clock, in a replay of another year."""
        age_s, limit_s = time.monotonic() - waiting.received_s, self.max_latency_s
        if limit_s <= 0 or age_s <= limit_s:
            return False
        with self._changed:
            c = self._slots[camera]
            c.count(overdue=c.counts.overdue + 1)
        self._report(
            f'Dropped an image{_of(camera)}: overdue, received {age_s:.2f} s ago, and '
            f'max_latency_s is {limit_s:g}'
        )
        return True

    def _fail(
        self, camera: str, waiting: Waiting, error: Exception, *, stepped: bool = False
    ) -> None:
        if not stepped:
            self._put_back(camera, (*waiting.skipped_ns, waiting.stamp_ns))
        reason = _in_words(error)
        _log.debug('An image%s failed:', _of(camera), exc_info=error)
        with self._changed:
            c = self._slots[camera]
            c.count(failed=c.counts.failed + 1, last_failure=reason)
        self._report(f'Dropped an image{_of(camera)}: {reason}')

    def _put_back(self, camera: str, stamps_ns: tuple[int, ...]) -> None:
        """The frames never reached a step, so their stamps still bridge the gap to the next."""
        with self._changed:
            self._slots[camera].skipped_ns.extendleft(reversed(stamps_ns))


def _rate_hz(times_s: deque[float], now_s: float) -> float:
    """Over the last five seconds, so that a camera that stops shows it."""
    recent = [t for t in times_s if t > now_s - 5]
    if len(recent) < 2:
        return 0.0
    return (len(recent) - 1) / max(now_s - recent[0], 1e-9)


def _of(camera: str) -> str:
    return f' of {camera}' if camera else ''


def _in_words(error: Exception) -> str:
    """One line, whatever the exception carries."""
    text = str(error).strip().split('\n')[0]
    return text if isinstance(error, ValueError) and text else f'{type(error).__name__}: {text}'
