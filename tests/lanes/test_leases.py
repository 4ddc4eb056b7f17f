import pytest

from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.lanes.leases import LeaseTable, dead_answer


def job(number: int, start: int = 0) -> Job:
    return Job(trial=TrialKey("mail/lora", number), params={}, seed=number, start=start, stop=start + 10, total=40)


def table_of(*numbers: int, lanes: int = 1) -> LeaseTable:
    table = LeaseTable(patience=60.0)
    for number in numbers:
        table.submit(job(number))
    for lane in range(lanes):
        assert table.join(lane, "first", 0.0) == []
    return table


def held(table: LeaseTable, lane: int = 0) -> list[int]:
    return [one.trial.number for one in table.lanes().get(lane, [])]


def taken(table: LeaseTable, lane: int = 0, life: str = "first", now: float = 1.0) -> int | None:
    found = table.take(lane, life, now)
    return found.trial.number if found else None


def test_jobs_are_leased_in_the_order_they_came_and_each_once() -> None:
    table = table_of(0, 1, 2, lanes=2)
    assert [taken(table, 0), taken(table, 1), taken(table, 0), taken(table, 1)] == [0, 1, 2, None]
    assert (held(table, 0), held(table, 1), table.waiting()) == ([0, 2], [1], 0)


def test_a_lane_goes_on_with_the_trial_that_it_worked_on_before() -> None:
    table = table_of(0, 1, lanes=2)
    assert (taken(table, 0), taken(table, 1)) == (0, 1)
    for lane, number in ((0, 0), (1, 1)):
        assert table.complete(lane, "first", job(number).id)
    for number in (0, 1):
        table.submit(job(number, start=10))
    assert (taken(table, 1), taken(table, 0)) == (1, 0)


def test_a_lane_takes_what_others_began_rather_than_nothing() -> None:
    table = table_of(0, lanes=2)
    assert taken(table, 0) == 0
    table.complete(0, "first", job(0).id)
    table.submit(job(0, start=10))
    assert taken(table, 1) == 0


def test_what_a_dead_lane_held_goes_first_and_in_its_order() -> None:
    table = table_of(0, 1, 2)
    assert (taken(table), taken(table)) == (0, 1)
    assert table.join(0, "second", 2.0) == []
    assert table.waiting() == 3
    order = []
    while (number := taken(table, life="second")) is not None:
        order.append(number)
        table.complete(0, "second", job(number).id)
    assert order == [0, 1, 2]


def test_a_job_that_saw_a_death_is_leased_alone() -> None:
    table = table_of(0, 1, 2)
    assert (taken(table), taken(table)) == (0, 1)
    table.join(0, "second", 2.0)
    assert taken(table, life="second") == 0
    assert taken(table, life="second") is None, "nothing joins a job that has seen a death"
    table.complete(0, "second", job(0).id)
    assert taken(table, life="second") == 1
    table.complete(0, "second", job(1).id)
    table.submit(job(3))
    assert (taken(table, life="second"), taken(table, life="second")) == (2, 3)


def test_a_job_that_saw_a_death_joins_no_other_and_none_goes_before_it() -> None:
    table = table_of(0, 1, lanes=2)
    assert (taken(table, 0), taken(table, 1)) == (0, 1)
    table.join(0, "second", 2.0)
    table.submit(job(2))
    assert taken(table, 1) is None, "lane 1 is at work, and runs empty for the job that needs a lane of its own"
    assert taken(table, 0, "second") == 0
    assert taken(table, 1) == 2


def test_a_second_death_fails_the_culprit_and_nothing_else() -> None:
    table = table_of(0, 1, 2)
    assert (taken(table), taken(table)) == (0, 1)
    table.join(0, "second", 2.0)
    assert taken(table, life="second") == 0
    assert table.join(0, "third", 3.0) == [job(0)]
    assert [taken(table, life="third")] == [1]
    table.complete(0, "third", job(1).id)
    assert taken(table, life="third") == 2


def test_the_answer_to_a_failed_job_says_why() -> None:
    answer = dead_answer(job(0, start=10), 2)
    assert (answer.status, answer.step) == ("failed", 10)
    assert "died 2 times" in answer.reason


@pytest.mark.parametrize(
    ("lane", "life", "job_id", "counts"),
    [
        (0, "first", job(0).id, False),  # a life that has ended
        (0, "second", job(0).id, True),
        (1, "first", job(0).id, False),  # another's job
        (0, "second", job(7).id, False),  # nobody's job
        (5, "first", job(0).id, False),  # no such lane
    ],
)
def test_only_the_holder_s_answer_counts(lane: int, life: str, job_id: str, counts: bool) -> None:
    table = table_of(0, lanes=2)
    taken(table)
    table.join(0, "second", 2.0)
    assert taken(table, life="second") == 0
    assert table.complete(lane, life, job_id) is counts
    assert table.complete(lane, life, job_id) is False, "an answer counts once"


def test_a_life_that_has_ended_takes_nothing() -> None:
    table = table_of(0)
    table.join(0, "second", 2.0)
    assert taken(table, life="first") is None
    assert table.heartbeat(0, "first", 3.0) == set()
    assert taken(table, life="second") == 0


@pytest.mark.parametrize(
    ("beats", "now", "given_up"),
    [([], 60.9, False), ([], 61.1, True), ([50.0], 100.0, False), ([50.0], 110.1, True)],
)
def test_a_silent_lane_is_given_up(beats: list[float], now: float, given_up: bool) -> None:
    table = table_of(0)
    assert taken(table, now=1.0) == 0
    for beat in beats:
        assert table.heartbeat(0, "first", beat) == {job(0).id}
    assert table.expire(now) == []
    assert table.waiting() == given_up
    assert table.is_current(0, "first") is not given_up


def test_a_lane_without_work_may_be_silent() -> None:
    table = table_of()
    table.expire(1e6)
    assert table.is_current(0, "first")


def test_a_second_silence_fails_the_job() -> None:
    table = table_of(0)
    assert taken(table, now=0.0) == 0
    assert table.expire(61.0) == []
    table.join(0, "second", 61.0)
    assert taken(table, life="second", now=61.0) == 0
    assert table.expire(122.0) == [job(0)]
    assert table.waiting() == 0


def test_cancel_forgets_what_waits_and_what_runs() -> None:
    table = table_of(0, 1)
    assert taken(table) == 0
    assert sorted(one.trial.number for one in table.cancel()) == [0, 1]
    assert (table.waiting(), held(table)) == (0, [])
    assert table.heartbeat(0, "first", 2.0) == set(), "the lane learns that it has lost its job"
    assert not table.complete(0, "first", job(0).id)
    assert table.join(0, "second", 3.0) == [], "a death after it concerns nobody"
    assert table.waiting() == 0


def test_a_full_lane_runs_empty_for_a_job_that_must_be_leased_alone() -> None:
    """Otherwise fresh jobs would fill its room for ever."""
    table = table_of(0, lanes=2)
    assert taken(table, 1) == 0
    table.submit(job(1))
    table.submit(job(2))
    assert taken(table, 0) == 1
    table.join(1, "second", 2.0)
    assert taken(table, 0) is None
    assert table.complete(0, "first", job(1).id)
    assert taken(table, 0) == 0
