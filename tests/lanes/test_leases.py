from dataclasses import replace

import pytest

from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.lanes.leases import REMEMBERED_TRIALS, LeaseTable, dead_answer


def job(number: int, start: int = 0) -> Job:
    return Job(trial=TrialKey("mail/lora", number), params={}, seed=number, start=start, stop=start + 10, total=40)


def table_of(*numbers: int, lanes: int = 1) -> LeaseTable:
    table = LeaseTable(heartbeat_timeout_s=60.0)
    for number in numbers:
        table.submit(job(number))
    for lane in range(lanes):
        assert table.join(lane, "first", 0.0) == []
    return table


def held(table: LeaseTable, lane: int = 0) -> list[int]:
    return [leased_job.trial.number for leased_job in table.lanes().get(lane, [])]


def take(table: LeaseTable, lane: int = 0, incarnation: str = "first", now: float = 1.0) -> int | None:
    leased_job = table.take(lane, incarnation, now)
    return leased_job.trial.number if leased_job else None


def test_leases_follow_the_queue_and_each_job_once() -> None:
    table = table_of(0, 1, 2, lanes=2)
    assert [take(table, 0), take(table, 1), take(table, 0), take(table, 1)] == [0, 1, 2, None]
    assert (held(table, 0), held(table, 1), table.waiting()) == ([0, 2], [1], 0)


def test_lease_prefers_the_lanes_last_trial() -> None:
    table = table_of(0, 1, lanes=2)
    assert (take(table, 0), take(table, 1)) == (0, 1)
    for lane, number in ((0, 0), (1, 1)):
        assert table.complete(lane, "first", job(number).id)
    for number in (0, 1):
        table.submit(job(number, start=10))
    assert (take(table, 1), take(table, 0)) == (1, 0)


def test_lease_remembers_lanes_of_the_latest_trials_only() -> None:
    table = table_of(*range(REMEMBERED_TRIALS))
    for _ in range(REMEMBERED_TRIALS):
        take(table)
    table.complete(0, "first", job(0).id)
    for latest in (job(0, start=10), job(REMEMBERED_TRIALS)):
        table.submit(latest)
        assert take(table) == latest.trial.number
    assert len(table._last_lane) == REMEMBERED_TRIALS
    assert ("mail/lora/0" in table._last_lane, "mail/lora/1" in table._last_lane) == (True, False)


def test_lease_takes_another_lanes_trial_rather_than_nothing() -> None:
    table = table_of(0, lanes=2)
    assert take(table, 0) == 0
    table.complete(0, "first", job(0).id)
    table.submit(job(0, start=10))
    assert take(table, 1) == 0


def test_lease_requeues_a_dead_lanes_jobs_first_in_order() -> None:
    table = table_of(0, 1, 2)
    assert (take(table), take(table)) == (0, 1)
    assert table.join(0, "second", 2.0) == []
    assert table.waiting() == 3
    order = []
    while (number := take(table, incarnation="second")) is not None:
        order.append(number)
        table.complete(0, "second", job(number).id)
    assert order == [0, 1, 2]


def test_lease_of_a_job_after_a_death_is_alone() -> None:
    table = table_of(0, 1, 2)
    assert (take(table), take(table)) == (0, 1)
    table.join(0, "second", 2.0)
    assert take(table, incarnation="second") == 0
    assert take(table, incarnation="second") is None, "a job whose lane has died is alone in its lane"
    table.complete(0, "second", job(0).id)
    assert take(table, incarnation="second") == 1
    table.complete(0, "second", job(1).id)
    table.submit(job(3))
    assert (take(table, incarnation="second"), take(table, incarnation="second")) == (2, 3)


def test_lease_of_a_job_after_a_death_joins_no_other() -> None:
    table = table_of(0, 1, lanes=2)
    assert (take(table, 0), take(table, 1)) == (0, 1)
    table.join(0, "second", 2.0)
    table.submit(job(2))
    assert take(table, 1) is None, "lane 1 has a job, and takes no other while one waits that must be alone"
    assert take(table, 0, "second") == 0
    assert take(table, 1) == 2


def test_lease_fails_a_job_at_its_second_death_alone() -> None:
    table = table_of(0, 1, 2)
    assert (take(table), take(table)) == (0, 1)
    for incarnation in ("second", "third"):
        assert table.join(0, incarnation, 2.0) == []
        assert take(table, incarnation=incarnation) == 0
    assert table.join(0, "fourth", 3.0) == [job(0)]
    assert take(table, incarnation="fourth") == 1
    table.complete(0, "fourth", job(1).id)
    assert take(table, incarnation="fourth") == 2


def test_lease_counts_no_death_of_a_pack() -> None:
    table = table_of(0, 1)
    assert (take(table), take(table)) == (0, 1)
    table.join(0, "second", 2.0)
    assert take(table, incarnation="second") == 0
    assert table.join(0, "third", 3.0) == [], "the first death alone, after one in a pack"
    assert take(table, incarnation="third") == 0


def test_dead_answer_names_the_number_of_deaths() -> None:
    answer = dead_answer(job(0, start=10), 2)
    assert (answer.status, answer.step) == ("failed", 10)
    assert answer.reason == "its lane died 2 times while it trained"
    assert dead_answer(job(0), 2, "CUDA error").reason == "its lane died 2 times while it trained; last: CUDA error"


@pytest.mark.parametrize(
    ("lane", "incarnation", "job_id", "counts"),
    [
        (0, "first", job(0).id, False),  # a life that has ended
        (0, "second", job(0).id, True),
        (1, "first", job(0).id, False),  # another's job
        (0, "second", job(7).id, False),  # nobody's job
        (5, "first", job(0).id, False),  # no such lane
    ],
)
def test_lease_completes_by_its_holder_alone(lane: int, incarnation: str, job_id: str, counts: bool) -> None:
    table = table_of(0, lanes=2)
    take(table)
    table.join(0, "second", 2.0)
    assert take(table, incarnation="second") == 0
    assert table.complete(lane, incarnation, job_id) is counts
    assert table.complete(lane, incarnation, job_id) is False, "an answer counts once"


def test_lease_is_refused_to_a_former_incarnation() -> None:
    table = table_of(0)
    table.join(0, "second", 2.0)
    assert take(table, incarnation="first") is None
    assert table.heartbeat(0, "first", 3.0) == set()
    assert take(table, incarnation="second") == 0


@pytest.mark.parametrize(
    ("beats", "now", "given_up"),
    [([], 60.9, False), ([], 61.1, True), ([50.0], 100.0, False), ([50.0], 110.1, True)],
)
def test_lease_expires_without_heartbeats(beats: list[float], now: float, given_up: bool) -> None:
    table = table_of(0)
    assert take(table, now=1.0) == 0
    for beat in beats:
        assert table.heartbeat(0, "first", beat) == {job(0).id}
    assert table.expire(now) == []
    assert table.waiting() == given_up
    assert table.is_current(0, "first") is not given_up


def test_lane_without_jobs_needs_no_heartbeat() -> None:
    table = table_of()
    table.expire(1e6)
    assert table.is_current(0, "first")


def test_lease_that_expires_twice_fails_the_job() -> None:
    table = table_of(0)
    assert take(table, now=0.0) == 0
    assert table.expire(61.0) == []
    table.join(0, "second", 61.0)
    assert take(table, incarnation="second", now=61.0) == 0
    assert table.expire(122.0) == [job(0)]
    assert table.waiting() == 0


def test_lease_table_cancel_removes_queued_and_leased_jobs() -> None:
    table = table_of(0, 1)
    assert take(table) == 0
    assert sorted(leased_job.trial.number for leased_job in table.cancel()) == [0, 1]
    assert (table.waiting(), held(table)) == (0, [])
    assert table.heartbeat(0, "first", 2.0) == set(), "the lane has lost its job"
    assert not table.complete(0, "first", job(0).id)
    assert table.join(0, "second", 3.0) == [], "a later death fails no job"
    assert table.waiting() == 0


def test_lane_empties_for_a_job_that_must_be_alone() -> None:
    """Otherwise new jobs would always fill its slots."""
    table = table_of(0, lanes=2)
    assert take(table, 1) == 0
    table.submit(job(1))
    table.submit(job(2))
    assert take(table, 0) == 1
    table.join(1, "second", 2.0)
    assert take(table, 0) is None
    assert table.complete(0, "first", job(1).id)
    assert take(table, 0) == 0


def test_leaving_lane_gets_no_job_and_hands_back_its_own() -> None:
    table = table_of(0, 1, 2)
    assert (take(table), take(table)) == (0, 1)
    table.let_leave(0)
    assert take(table) is None
    for number, saved in ((0, True), (1, False)):
        assert table.hand_back(0, "first", job(number).id, saved=saved) == replace(job(number), has_partial_state=saved)
    assert table.hand_back(0, "first", job(0).id, saved=True) is None, "it holds it no longer"
    table.join(1, "first", 2.0)
    leased = [table.take(1, "first", 3.0) for _ in range(3)]
    assert leased == [job(1), replace(job(0), has_partial_state=True), job(2)]


def test_leaving_lane_that_dies_counts_no_death() -> None:
    table = table_of(0, 1)
    for life in range(5):
        assert (take(table, incarnation=str(life) if life else "first"), table.waiting()) == (0, 1)
        table.let_leave(0)
        assert table.join(0, str(life + 1), 2.0) == []
    assert (take(table, incarnation="5"), take(table, incarnation="5")) == (0, 1), "nor has a job to run alone"
