# SPDX-License-Identifier: Apache-2.0
"""The worker answers the latest message of each camera, and whatever happens it goes on."""

import threading
import time

import pytest

from smoothdino_ros import inference_worker
from smoothdino_ros.inference_worker import InferenceWorker
from support.clock import Clock


@pytest.fixture
def clock(monkeypatch):
    """The worker's clock."""
    monkeypatch.setattr(inference_worker, 'time', clock := Clock())
    return clock


class Camera:
    """A camera of `Answers`: messages in capitals are of another kind."""

    def __init__(self, name: str, answers: 'Answers') -> None:
        self.name, self.answers = name, answers

    def ready(self) -> bool:
        return self.name not in self.answers.not_ready

    def read(self, waiting):
        if waiting.message == 'broken':
            raise ValueError('expected a picture, got a broken one')
        return waiting

    def kind(self, waiting) -> bool:
        return str(waiting.message).isupper()

    def publish(self, _, __, result) -> None:
        self.answers.published.append((self.name, result))


class Answers:
    """Stands for the pipeline and the publishers: each step waits for `let` to be called."""

    def __init__(self, cameras=('front',), *, blocked: bool = False, **options) -> None:
        self.not_ready: set[str] = set()
        self.batches: list[dict] = []
        self.published: list[tuple] = []
        self.reports: list[str] = []
        self.entered = threading.Semaphore(0)
        self._may_step = threading.Semaphore(0) if blocked else None
        self.worker = InferenceWorker(
            {name: Camera(name, self) for name in cameras},
            step=self._step,
            report=self.reports.append,
            **options,
        )

    def __enter__(self) -> 'Answers':
        self.worker.start()
        return self

    def __exit__(self, *_) -> None:
        self.let(1000)
        self.worker.stop()

    def let(self, steps: int = 1) -> None:
        if self._may_step is not None:
            self._may_step.release(steps)

    def until(self, condition) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, 'nothing happened'
            time.sleep(0.002)

    def offer(self, camera: str, message, stamp_ns: int) -> None:
        self.worker.offer(camera, message, stamp_ns=stamp_ns)

    def _step(self, frames):
        self.entered.release()
        if self._may_step is not None:
            self._may_step.acquire()
        self.batches.append(frames)
        if any(frame.message == 'too much' for frame in frames.values()):
            raise MemoryError('out of memory')
        return {camera: frame.message for camera, frame in frames.items()}


def test_only_the_latest_message_is_answered_and_the_dropped_stamps_are_told():
    with Answers(blocked=True) as answers:
        answers.offer('front', 'a', 1)
        answers.entered.acquire()
        for stamp_ns, message in enumerate('bcd', start=2):
            answers.offer('front', message, stamp_ns)
        answers.let(2)
        answers.until(lambda: len(answers.published) == 2)
        assert answers.published == [('front', 'a'), ('front', 'd')]
        assert answers.batches[1]['front'].skipped_ns == (2, 3)
        counts = answers.worker.counts()['front']
    assert (counts.received, counts.dropped, counts.answered) == (4, 2, 2)
    assert len(counts.latencies_s) == 2


def test_cameras_that_wait_at_the_same_moment_are_one_batch():
    with Answers(['front', 'rear'], blocked=True) as answers:
        answers.offer('front', 'a', 1)
        answers.entered.acquire()
        answers.offer('front', 'b', 2)
        answers.offer('rear', 'c', 2)
        answers.let(2)
        answers.until(lambda: len(answers.published) == 3)
    assert [sorted(batch) for batch in answers.batches] == [['front'], ['front', 'rear']]


class Preparing(Answers):
    """Is made ready, once for each number of cameras, while messages come."""

    def __init__(self, *cameras: str, meanwhile=(), **options) -> None:
        self.prepared: list[list[str]] = []
        self._meanwhile = meanwhile
        super().__init__(cameras, prepare=self._prepare, **options)

    def _prepare(self, frames) -> bool:
        if len(frames) in map(len, self.prepared):
            return False
        self.prepared.append(sorted(frames))
        for message, stamp_ns in self._meanwhile:
            self.offer('front', message, stamp_ns)
        return True


def test_a_message_that_was_made_ready_for_is_answered_where_no_later_one_came():
    with Preparing('front') as answers:
        for i, message in enumerate('ab', start=1):
            answers.offer('front', message, i)
            answers.until(lambda i=i: len(answers.published) == i)
    assert answers.prepared == [['front']]
    assert answers.published == [('front', 'a'), ('front', 'b')]
    assert answers.batches[0]['front'].skipped_ns == ()


def test_messages_that_came_while_it_was_made_ready_are_answered_in_place_of_the_first():
    """So the first answer is as fresh as the later ones."""
    with Preparing('front', meanwhile=[('b', 2), ('c', 3)]) as answers:
        answers.offer('front', 'a', 1)
        answers.until(lambda: answers.published)
        counts = answers.worker.counts()['front']
    assert answers.published == [('front', 'c')]
    assert answers.batches[0]['front'].skipped_ns == (1, 2)
    assert (counts.received, counts.dropped, counts.answered) == (3, 2, 1)


def test_what_the_rate_limit_leaves_out_meanwhile_keeps_its_place_in_time(clock):
    with Preparing('front', meanwhile=[('b', 2)], max_rate_hz=1.0) as answers:
        answers.offer('front', 'a', 1)
        answers.until(lambda: answers.worker.counts()['front'].dropped == 2)
        clock.now_s += 2
        answers.offer('front', 'c', 3)
        answers.until(lambda: answers.published)
    assert answers.published == [('front', 'c')]
    assert answers.batches[0]['front'].skipped_ns == (1, 2)


def test_where_it_cannot_be_made_ready_the_batch_fails_and_the_next_is_answered():
    def fail_once(frames) -> bool:
        if failed:
            return False
        failed.append(True)
        raise MemoryError('out of memory')

    failed: list[bool] = []
    with Answers(prepare=fail_once) as answers:
        answers.offer('front', 'a', 1)
        answers.until(lambda: answers.reports)
        answers.offer('front', 'b', 2)
        answers.until(lambda: answers.published)
    assert answers.published == [('front', 'b')]
    assert answers.reports == ['Dropped an image of front: MemoryError: out of memory']


def test_messages_of_another_kind_are_another_batch_that_holds_up_no_answer():
    with Answers(['front', 'rear', 'left'], blocked=True) as answers:
        answers.offer('front', 'a', 1)
        answers.entered.acquire()
        for camera, message in {'front': 'b', 'rear': 'B', 'left': 'c'}.items():
            answers.offer(camera, message, 2)
        answers.let(2)
        answers.until(lambda: len(answers.published) == 3)  # while the other one is at work
        answers.offer('left', 'd', 3)
        answers.let(2)
        answers.until(lambda: len(answers.published) == 5)
    assert [sorted(batch) for batch in answers.batches] == [
        ['front'],
        ['front', 'left'],
        ['rear'],
        ['left'],
    ]


def test_a_step_that_raises_drops_no_frame_of_another_kind():
    with Answers(['front', 'rear'], blocked=True) as answers:
        answers.offer('front', 'a', 1)
        answers.entered.acquire()
        answers.offer('front', 'too much', 2)
        answers.offer('rear', 'B', 2)
        answers.let(3)
        answers.until(lambda: len(answers.published) == 2)
        counts = answers.worker.counts()
    assert answers.published[1] == ('rear', 'B')
    assert (counts['front'].failed, counts['rear'].failed) == (1, 0)


def test_a_camera_that_is_not_ready_keeps_its_latest_message_and_holds_up_no_other():
    with Answers(['front', 'rear']) as answers:
        answers.not_ready.add('front')
        answers.offer('front', 'a', 1)
        answers.offer('rear', 'b', 1)
        answers.until(lambda: answers.published == [('rear', 'b')])
        answers.offer('front', 'c', 2)
        answers.offer('rear', 'd', 2)
        answers.until(lambda: len(answers.published) == 2)
        answers.not_ready.clear()  # of which nobody tells the worker
        answers.until(lambda: len(answers.published) == 3)
        counts = answers.worker.counts()['front']
    assert answers.published[1:] == [('rear', 'd'), ('front', 'c')]
    assert answers.batches[-1]['front'].skipped_ns == (1,)
    assert (counts.received, counts.dropped, counts.answered) == (2, 1, 1)


def test_a_message_that_cannot_be_read_leaves_the_others_alone():
    with Answers(['front', 'rear'], blocked=True) as answers:
        answers.offer('front', 'a', 1)
        answers.entered.acquire()
        answers.offer('front', 'dropped', 2)
        answers.offer('front', 'broken', 3)
        answers.offer('rear', 'b', 3)
        answers.let(3)
        answers.until(lambda: len(answers.published) == 2)
        answers.offer('front', 'c', 4)
        answers.until(lambda: len(answers.published) == 3)
        counts = answers.worker.counts()
    assert answers.published[1:] == [('rear', 'b'), ('front', 'c')]
    assert counts['front'].rejected == 1
    assert counts['front'].last_rejection == 'expected a picture, got a broken one'
    assert counts['rear'].rejected == 0
    assert answers.batches[-1]['front'].skipped_ns == (2,)  # a stamp of a broken one is no stamp


def test_a_step_that_raises_drops_its_batch_and_the_next_is_answered():
    with Answers() as answers:
        answers.offer('front', 'too much', 1)
        answers.until(lambda: answers.reports)
        answers.offer('front', 'a', 2)
        answers.until(lambda: answers.published)
        counts = answers.worker.counts()['front']
    assert answers.published == [('front', 'a')]
    assert answers.batches[-1]['front'].skipped_ns == (1,)
    assert (counts.failed, counts.answered) == (1, 1)
    assert counts.last_failure == 'MemoryError: out of memory'


def test_unwanted_messages_cost_no_step_and_bridge_no_gap():
    with Answers() as answers:
        answers.worker.offer('front', 'a', stamp_ns=1, wanted=False)
        answers.offer('front', 'b', 2)
        answers.until(lambda: answers.published)
        counts = answers.worker.counts()['front']
    assert answers.published == [('front', 'b')]
    assert answers.batches[0]['front'].skipped_ns == ()
    assert (counts.received, counts.unwanted, counts.dropped) == (2, 1, 0)


def answered_or_dropped(answers) -> int:
    counts = answers.worker.counts()['front']
    return counts.answered + counts.dropped


# The first one, then half a period later at the soonest, and a period after each that was due.
@pytest.mark.parametrize(('rate_hz', 'passed'), [(10.0, [0, 3, 8, 13, 18]), (0.0, range(20))])
def test_the_rate_is_limited(clock, rate_hz, passed):
    with Answers(max_rate_hz=rate_hz) as answers:
        for i in range(20):
            answers.offer('front', i, i)
            answers.until(lambda: answered_or_dropped(answers) == i + 1)  # noqa: B023, of this turn
            clock.advance(0.02)
        counts = answers.worker.counts()['front']
    assert answers.published == [('front', i) for i in passed]
    assert counts.received == 20


def test_actions_run_in_the_thread_before_the_next_batch():
    ran: list[str] = []
    with Answers(blocked=True) as answers:
        answers.offer('front', 'a', 1)
        answers.entered.acquire()
        answers.worker.before_next_batch(lambda: ran.append(threading.current_thread().name))
        answers.worker.before_next_batch(lambda: 1 / 0)
        answers.offer('front', 'b', 2)
        assert not ran
        answers.let(1)
        answers.entered.acquire()  # in the second step
        assert ran == ['inference']
        answers.let(1)
        answers.until(lambda: len(answers.published) == 2)


def test_stopping_joins_the_thread_in_mid_step_and_without_one():
    before = threading.active_count()
    with Answers() as answers:
        answers.offer('front', 'a', 1)
    assert threading.active_count() == before
    Answers().worker.stop()  # never started


def test_what_is_overdue_is_neither_worked_on_nor_published_and_counted(clock):
    with Answers(blocked=True, max_latency_s=0.2) as answers:
        answers.offer('front', 'late in its step', 1)
        answers.entered.acquire()
        answers.offer('front', 'late in its slot', 2)
        clock.advance(0.25)
        answers.let(1)
        answers.until(lambda: answers.worker.counts()['front'].overdue == 2)
        answers.let(1)
        answers.offer('front', 'in time', 3)
        answers.until(lambda: answers.published)
        counts = answers.worker.counts()['front']
    assert answers.published == [('front', 'in time')]
    assert [batch['front'].message for batch in answers.batches] == ['late in its step', 'in time']
    assert answers.batches[-1]['front'].skipped_ns == (2,)  # it came, so it bridges the gap
    assert (counts.received, counts.overdue, counts.answered) == (3, 2, 1)
    assert 'overdue' in answers.reports[0]


def test_the_limit_of_the_latency_can_change_at_any_time(clock):
    with Answers(blocked=True) as answers:
        answers.offer('front', 'a', 1)
        answers.entered.acquire()
        answers.worker.max_latency_s = 0.01
        clock.advance(0.05)
        answers.let(1)
        answers.until(lambda: answers.worker.counts()['front'].overdue)
        answers.worker.max_latency_s = 0.0
        answers.offer('front', 'b', 2)
        answers.let(1)
        answers.until(lambda: answers.published)
    assert answers.published == [('front', 'b')]
