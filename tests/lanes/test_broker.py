"""The broker as a plain object: callers are threads here and actors in a sweep."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from orchestrator.common.trial_types import Answer, Job, TrialKey
from orchestrator.lanes import broker as module
from orchestrator.lanes.broker import LaneStatus, Signal
from orchestrator.lanes.lane_starts import FAILED_START_LIMIT
from orchestrator.lanes.leases import LeaseTable

from .. import polling
from .local_broker import LocalBroker

DEADLINE = 20.0
until = partial(polling.until, seconds=DEADLINE, pause=0.001)
HEARTBEAT_TIMEOUT_S = 60.0


def job(number: int, start: int = 0) -> Job:
    return Job(trial=TrialKey("mail/lora", number), params={}, seed=number, start=start, stop=start + 10, total=40)


def done(number: int) -> Answer:
    return Answer(status="done", step=10, metrics={"accuracy": float(number)})


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


class Office:
    """A broker and the threads that call it."""

    def __init__(self, pool: ThreadPoolExecutor, min_lanes: int = 1, death_limit: int = 2) -> None:
        self.pool = pool
        self.broker = LocalBroker(min_lanes, LeaseTable(death_limit, HEARTBEAT_TIMEOUT_S))

    def submit(self, *numbers: int) -> list[Future[Answer]]:
        """Submit jobs one after the other, so that they queue in this order."""
        answers = []
        for number in numbers:
            before = self.waiting()
            answers.append(self.pool.submit(self.broker.run, job(number)))
            until(partial(self._has_waiting, before + 1))
        return answers

    def _has_waiting(self, count: int) -> bool:
        return self.waiting() == count

    def waiting(self) -> int:
        return self.broker.status()[1]

    def living(self) -> list[int]:
        return list(self.broker.status()[0])

    def join(self, lane: int = 0, incarnation: str = "first") -> None:
        self.broker.join(lane, incarnation, LaneStatus(pid=lane))

    def take(self, lane: int = 0, incarnation: str = "first", wait: bool = False) -> Any:
        return self.broker.take(lane, incarnation, wait)

    def later(self, lane: int = 0, incarnation: str = "first") -> Future[Any]:
        """Start a lane's long poll; returns once it waits."""
        waits = self.pool.submit(self.broker.take, lane, incarnation, True)
        until(lambda: len(self.broker._changed._waiters) > 0 or waits.done())
        return waits


@pytest.fixture
def office(pool: ThreadPoolExecutor) -> Iterator[Office]:
    office = Office(pool)
    yield office
    office.broker.cancel()  # a test that failed leaves callers behind, and the pool waits for them
    office.broker.close()


def test_broker_returns_each_answer_to_its_caller(office: Office) -> None:
    answers = office.submit(0, 1, 2)
    office.join()
    for number in (0, 1, 2):
        assert office.take() == job(number)
    for number in (2, 0, 1):
        office.broker.done(0, "first", job(number).id, done(number))
    assert [answer.result(DEADLINE) for answer in answers] == [done(0), done(1), done(2)]


def test_broker_does_an_open_job_once_for_two_callers(office: Office) -> None:
    """The first caller was the process of a trial that has died."""
    (answer,) = office.submit(0)
    office.join()
    again = office.pool.submit(office.broker.run, job(0))
    until(lambda: len(office.broker._answers[job(0).id]._callbacks or ()) == 2)
    assert (office.take(), office.take()) == (job(0), None)
    office.broker.done(0, "first", job(0).id, done(0))
    assert (answer.result(DEADLINE), again.result(DEADLINE)) == (done(0), done(0))


def test_broker_gives_new_work_to_a_waiting_lane_at_once(office: Office) -> None:
    office.join()
    waits = office.later()
    answer = office.pool.submit(office.broker.run, job(0))
    assert waits.result(DEADLINE / 4) == job(0), "well before its poll would end"
    office.broker.done(0, "first", job(0).id, done(0))
    assert answer.result(DEADLINE) == done(0)


def test_broker_delivers_an_answer_past_waiting_lanes(office: Office) -> None:
    office.join()
    (answer,) = office.submit(0)
    assert office.take() == job(0)
    waiting_lanes = [office.later() for _ in range(8)]
    office.broker.done(0, "first", job(0).id, done(0))
    assert answer.result(DEADLINE / 4) == done(0)
    office.broker.close()
    assert {wait.result(DEADLINE) for wait in waiting_lanes} == {Signal.RETIRE}


def test_broker_requeues_a_job_given_to_a_dead_waiter(office: Office) -> None:
    """A job that was given to a dead caller is leased again when the lane joins again."""
    office.join()
    dead_wait = office.later()
    answer = office.pool.submit(office.broker.run, job(0))
    assert dead_wait.result(DEADLINE) == job(0)  # the lane has died and does not receive it
    office.join(incarnation="second")
    assert office.take(incarnation="second") == job(0)
    office.broker.done(0, "second", job(0).id, done(0))
    assert answer.result(DEADLINE) == done(0)


def test_broker_gives_nothing_to_a_former_incarnation(office: Office) -> None:
    office.join()
    dead_wait = office.later()
    office.join(incarnation="second")
    answer = office.pool.submit(office.broker.run, job(0))
    assert office.broker.take(0, "second", True) == job(0)
    office.broker.done(0, "second", job(0).id, done(0))
    assert answer.result(DEADLINE) == done(0)
    office.broker.close()
    assert dead_wait.result(DEADLINE) != job(0)


def test_broker_requeues_the_job_of_a_lane_killed_in_training(office: Office) -> None:
    answers = office.submit(0, 1)
    office.join()
    office.join(lane=1)
    assert (office.take(), office.take(lane=1)) == (job(0), job(1))
    office.join(incarnation="second")
    office.broker.done(1, "first", job(1).id, done(1))
    assert answers[1].result(DEADLINE) == done(1), "the other lane is not affected"
    assert office.take(incarnation="second") == job(0)
    office.broker.done(0, "second", job(0).id, done(0))
    assert answers[0].result(DEADLINE) == done(0)


def test_broker_ignores_an_answer_of_a_former_incarnation(office: Office) -> None:
    (answer,) = office.submit(0)
    office.join()
    assert office.take() == job(0)
    office.join(incarnation="second")
    office.broker.done(0, "first", job(0).id, Answer(status="failed", reason="from a dead lane"))
    assert not answer.done()
    assert office.take(incarnation="second") == job(0)
    office.broker.done(0, "second", job(0).id, done(0))
    assert answer.result(DEADLINE) == done(0)


def test_broker_fails_a_poison_job_at_its_second_death_alone(office: Office) -> None:
    answers = office.submit(0, 1)
    office.join()
    assert (office.take(), office.take()) == (job(0), job(1))  # 0 is poison, 1 was in its pack
    office.join(incarnation="second")
    assert (office.take(incarnation="second"), office.take(incarnation="second")) == (job(0), None)
    office.join(incarnation="third")
    assert office.take(incarnation="third") == job(0)
    office.broker.leave(0, "third", "CUDA error")
    poisoned = answers[0].result(DEADLINE)
    assert poisoned.status == "failed"
    assert poisoned.reason == "its lane died 2 times while it trained; last: CUDA error"
    office.join(incarnation="fourth")
    assert office.take(incarnation="fourth") == job(1)
    office.broker.done(0, "fourth", job(1).id, done(1))
    assert answers[1].result(DEADLINE) == done(1)


def test_broker_requeues_the_jobs_of_a_leaving_lane_at_once(office: Office) -> None:
    (answer,) = office.submit(0)
    office.join()
    office.join(lane=1)
    assert office.take() == job(0)
    office.broker.leave(0, "former", "an incarnation that the lane no longer has")
    assert (office.living(), office.waiting()) == ([0, 1], 0)
    office.broker.leave(0, "first", "CUDA error")
    assert office.living() == [1]
    assert office.take(lane=1) == job(0)
    office.broker.done(1, "first", job(0).id, done(0))
    assert answer.result(DEADLINE) == done(0)


def test_broker_makes_a_lane_declared_dead_join_again(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    (answer,) = office.submit(0)
    office.join()
    assert office.take() == job(0)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + HEARTBEAT_TIMEOUT_S + 1)
    assert (office.living(), office.waiting()) == ([0], 0), "asking for the status changes nothing"
    office.broker.expire_silent_lanes()
    assert (office.living(), office.waiting()) == ([], 1), "its job is in the queue again"
    assert office.take() is Signal.REJOIN
    assert office.broker.heartbeat(0, "first", frozenset({job(0).id}), LaneStatus()).lost == {job(0).id}
    office.join(incarnation="second")
    assert office.take(incarnation="second") == job(0)
    office.broker.done(0, "second", job(0).id, done(0))
    assert answer.result(DEADLINE) == done(0)


def test_broker_reports_lost_jobs_with_the_heartbeat(office: Office) -> None:
    answers = office.submit(0, 1)
    office.join()
    assert (office.take(), office.take()) == (job(0), job(1))
    both = frozenset({job(0).id, job(1).id})
    assert office.broker.heartbeat(0, "first", both, LaneStatus()).lost == frozenset()
    office.broker.cancel()
    assert office.broker.heartbeat(0, "first", both, LaneStatus()).lost == both
    assert {answer.result(DEADLINE).status for answer in answers} == {"cancelled"}


def test_broker_cancel_answers_waiting_callers(office: Office) -> None:
    answers = office.submit(0, 1)
    office.broker.cancel()
    assert [answer.result(DEADLINE) for answer in answers] == [Answer(status="cancelled"), Answer(status="cancelled")]
    assert office.waiting() == 0


def test_closed_broker_retires_lanes_and_takes_no_jobs(office: Office) -> None:
    office.join()
    waits = office.later()
    office.broker.close()
    assert waits.result(DEADLINE / 4) is Signal.RETIRE
    assert office.take() is Signal.RETIRE
    assert office.broker.setup(0) is Signal.RETIRE
    assert office.broker.run(job(0)).status == "cancelled"


def test_broker_leases_nothing_before_min_lanes_have_joined(pool: ThreadPoolExecutor) -> None:
    office = Office(pool, min_lanes=2)
    (answer,) = office.submit(0)
    office.join()
    assert office.take() is None
    early = office.later()
    office.join(lane=1)
    assert early.result(DEADLINE / 4) == job(0), "the waiting lane receives it"
    office.broker.done(0, "first", job(0).id, done(0))
    assert answer.result(DEADLINE) == done(0)


def test_broker_leases_on_below_min_lanes_after_a_death(pool: ThreadPoolExecutor) -> None:
    office = Office(pool, min_lanes=2)
    answers = office.submit(0, 1)
    office.join()
    office.join(lane=1)
    assert office.take() == job(0)
    office.broker.report_failed_start(0, "no GPU")
    assert office.living() == [1]
    for number in (0, 1):  # the job of the dead lane is at the front of the queue
        assert office.take(lane=1) == job(number)
        office.broker.done(1, "first", job(number).id, done(number))
    assert [answer.result(DEADLINE) for answer in answers] == [done(0), done(1)]


def test_broker_counts_only_living_lanes_towards_min_lanes(pool: ThreadPoolExecutor) -> None:
    office = Office(pool, min_lanes=2)
    (answer,) = office.submit(0)
    office.join()
    office.broker.report_failed_start(0, "no GPU")
    office.join(lane=1)
    assert office.take(lane=1) is None
    office.join(incarnation="second")
    assert office.take(lane=1) == job(0)
    office.broker.done(1, "first", job(0).id, done(0))
    assert answer.result(DEADLINE) == done(0)


def test_broker_pauses_failed_starts_and_gives_the_lane_up(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "LONG_POLL_TIMEOUT_S", 0.0)
    office.broker.open("setup")
    for _ in range(FAILED_START_LIMIT):
        assert office.broker.setup(0) == "setup"
        office.broker.report_failed_start(0, "no GPU")
        assert office.broker.setup(0) in (None, Signal.RETIRE), "it waits before it tries again"
        clock[0] += 1000.0
    assert office.broker.given_up() == {0: "lane 0 could not start, tried 4 times: no GPU"}
    assert office.broker.setup(0) is Signal.RETIRE
    assert office.broker.group([0]) == (True, 0, [])
    assert office.broker.setup(1) == "setup", "the other lanes work"
    assert office.broker.group([0, 1]) == (False, 0, [])


def test_broker_forgets_failed_starts_when_the_lane_trains(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    for _ in range(2 * FAILED_START_LIMIT):
        office.broker.report_failed_start(0, "no GPU")
        office.join()
        office.broker.heartbeat(0, "first", frozenset({job(0).id}), LaneStatus())
        clock[0] += 1000.0
    assert office.broker.given_up() == {}


def test_broker_retires_idle_groups_while_jobs_have_lanes(office: Office) -> None:
    answers = office.submit(0, 1)
    groups = [range(0, 2), range(2, 4), range(4, 5)]
    for lane in range(4):
        office.join(lane)
    assert (office.take(0), office.take(1)) == (job(0), job(1))
    idle = office.later(2)
    assert office.broker.retire(groups, 0) == [range(4, 5), range(2, 4)]
    assert idle.result(DEADLINE / 4) is Signal.RETIRE, "the waiting lane ends at once"
    assert office.take(3) is Signal.RETIRE
    assert office.broker.setup(4) is Signal.RETIRE, "a lane whose node comes too late ends too"
    assert (office.living(), office.broker.has_retired(4), office.broker.has_retired(0)) == ([0, 1], True, False)
    assert office.broker.group([2, 3])[0]
    office.broker.leave(1, "first", "it died")
    assert office.take(0) is None, "the job of the dead lane must be alone"
    office.broker.done(0, "first", job(0).id, done(0))
    assert office.take(0) == job(1), "and finds a lane"
    office.broker.done(0, "first", job(1).id, done(1))
    assert [answer.result(DEADLINE) for answer in answers] == [done(0), done(1)]


def test_broker_long_polls_end(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG_POLL_TIMEOUT_S", 0.01)
    office.join()
    assert office.take(wait=True) is None
    assert office.broker.setup(0) is None


def test_broker_lets_lanes_wait_for_the_setup(office: Office) -> None:
    pending = office.pool.submit(office.broker.setup, 0)
    until(lambda: len(office.broker._changed._waiters) > 0)
    setup: Any = object()
    office.broker.open(setup)
    assert pending.result(DEADLINE / 4) is setup


def test_broker_loses_no_job_when_many_lanes_die(pool: ThreadPoolExecutor) -> None:
    """Four lanes; each dies once, at its third job."""
    office = Office(pool, death_limit=5)  # a job may meet the death of each lane
    jobs = 40
    stop = threading.Event()

    def lane(number: int) -> None:
        incarnation, count = f"{number}-first", 0
        office.join(number, incarnation)
        while not stop.is_set():
            message = office.take(number, incarnation)
            if not isinstance(message, Job):
                continue
            count += 1
            if count == 3:
                incarnation = f"{number}-second"
                office.join(number, incarnation)
                continue
            office.broker.done(number, incarnation, message.id, done(message.trial.number))

    lanes = [pool.submit(lane, number) for number in range(4)]
    try:
        with ThreadPoolExecutor(jobs) as callers:
            answers = list(callers.map(office.broker.run, [job(number) for number in range(jobs)], timeout=DEADLINE))
    finally:
        stop.set()
    assert answers == [done(number) for number in range(jobs)]
    for lane_call in lanes:
        lane_call.result(DEADLINE)
