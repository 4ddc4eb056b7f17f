"""The lane pool on a broker in the same process, without Ray."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.common.errors import SweepError
from orchestrator.common.trial_types import Answer, Job, TrialKey
from orchestrator.config import Lanes
from orchestrator.lanes import pool as module
from orchestrator.lanes.broker import LaneStatus
from orchestrator.lanes.lane_starts import FAILED_START_LIMIT
from orchestrator.lanes.pool import LanePool
from orchestrator.lanes.preemption import MovedJob, Notice
from orchestrator.sweep.runner import _Sweep
from orchestrator.sweep.status import Phase

from .local_broker import Direct, LocalBroker

JOB = Job(trial=TrialKey("mail/lora", 0), params={}, seed=0, start=0, stop=10, total=40)
STATUS = LaneStatus(nodes=("a",), pid=1, device="cuda")


def wait_for_first(refs: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
    return refs[:1], refs[1:]


@pytest.fixture
def broker() -> LocalBroker:
    return LocalBroker()


@pytest.fixture
def make_pool(broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Lanes], LanePool]:
    groups = SimpleNamespace(errors=[], alive=lambda: True)
    monkeypatch.setattr(module, "ray", SimpleNamespace(get=lambda value: value, wait=wait_for_first))
    monkeypatch.setattr(module, "start_broker", lambda *_: Direct(broker))
    monkeypatch.setattr(module, "LaneGroups", lambda *_: groups)
    monkeypatch.setattr(module, "node_resources", lambda: {"node": {"CPU": 2.0}})
    return lambda config: LanePool(config, str(tmp_path), growing=False)


@pytest.fixture
def pool(make_pool: Callable[[Lanes], LanePool]) -> LanePool:
    return make_pool(Lanes())


@pytest.fixture
def silent(broker: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lane 0 has a job, and has sent no heartbeat for longer than a lane may."""
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(broker.run, JOB)
        broker.join(0, "first", STATUS)
        while broker.take(0, "first", False) != JOB:
            time.sleep(0.001)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 61.0)
        yield
        broker.cancel()
        assert answer.result() == Answer(status="cancelled")


@pytest.mark.usefixtures("silent")
def test_sweep_check_finds_silent_lanes_without_a_display(broker: Any, pool: LanePool) -> None:
    sweep: Any = SimpleNamespace(
        pool=pool,
        journal=SimpleNamespace(error=None),
        followers=SimpleNamespace(fault=lambda: ""),
        folder=Path("nowhere"),
        search=None,
        _phase=Phase.SEARCHING,
        _stop=threading.Event(),
        _show_status=lambda: None,
        _record_lanes=lambda _: None,
        _follow_draining_nodes=lambda: None,
    )
    _Sweep._check_sweep(sweep)
    assert broker.status() == ({}, 1), "the lane is dead, and its job waits for another"


@pytest.mark.parametrize(("trials", "retirements"), [(None, []), (1, [5]), (7, [7])])
def test_sweep_check_lets_lanes_retire_that_nothing_needs(
    trials: int | None, retirements: list[int], pool: LanePool
) -> None:
    """Once no trial can start any more: those that have not ended, and the final's jobs, need lanes."""
    needed: list[int] = []
    pool._groups.retire = needed.append  # type: ignore[method-assign, assignment]
    sweep: Any = SimpleNamespace(
        pool=pool,
        journal=SimpleNamespace(error=None),
        followers=SimpleNamespace(fault=lambda: ""),
        folder=Path("nowhere"),
        search=SimpleNamespace(closed=False, most_at_once=trials),
        _most_final_jobs=5,
        _phase=Phase.SEARCHING,
        _stop=threading.Event(),
        _show_status=lambda: None,
        _record_lanes=lambda _: None,
        _follow_draining_nodes=lambda: None,
    )
    _Sweep._check_sweep(sweep)
    assert needed == retirements


def test_pool_lets_lanes_retire_as_the_final_has_fewer_jobs(pool: LanePool, monkeypatch: pytest.MonkeyPatch) -> None:
    needed: list[int] = []
    pool._groups.retire = needed.append  # type: ignore[method-assign, assignment]
    pool.broker = SimpleNamespace(run=SimpleNamespace(remote=lambda job: job.trial.number))
    ray = SimpleNamespace(get=lambda value: value, wait=wait_for_first)
    monkeypatch.setattr(module, "ray", ray)
    jobs = [replace(JOB, trial=TrialKey("mail/lora", number)) for number in range(3)]
    assert [job.trial.number for job, _ in pool.run_jobs(jobs)] == [0, 1, 2]
    assert needed == [2, 1, 0]


def fail_to_start(broker: Any, lane: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a lane's start until it is given up, each time after the pause."""
    now = time.monotonic()
    for attempt in range(FAILED_START_LIMIT):
        monkeypatch.setattr(time, "monotonic", partial(float, now + 100.0 * (attempt + 1)))
        broker.report_failed_start(lane, "no GPU")


def test_pool_gives_up_when_a_lane_cannot_reach_the_storage(broker: Any, pool: LanePool) -> None:
    assert pool.fault() == ""
    broker.report_fault("lane 0: the storage s3://bucket could not be reached for 300 s: no route")
    broker.report_fault("lane 1: another reason")
    assert pool.fault().startswith("lane 0: the storage s3://bucket could not be reached")


@pytest.mark.usefixtures("silent")
def test_pool_gives_up_when_no_lane_can_start_again(
    broker: Any, pool: LanePool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert pool.poll() == {0: STATUS}
    pool.expire_silent_lanes()
    assert pool.poll() == {}
    fail_to_start(broker, 0, monkeypatch)
    for _ in range(2):
        assert pool.fault() == "", "lane 1 may still start"
    assert [record.message for record in caplog.records] == [
        "lane 0 could not start, tried 4 times: no GPU; the sweep continues without it"
    ]
    fail_to_start(broker, 1, monkeypatch)
    assert pool.fault() == "every lane has ended: lane 1 could not start, tried 4 times: no GPU"


def test_pool_gives_up_when_fewer_lanes_than_the_minimum_can_start(
    broker: Any, make_pool: Callable[[Lanes], LanePool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(Lanes(min=2))
    broker.join(0, "first", STATUS)
    pool.poll()
    fail_to_start(broker, 1, monkeypatch)
    assert pool.fault().startswith("lanes.min is 2, and not as many can start: lane 1 could not start")


def test_pool_goes_on_with_one_lane_once_it_had_the_minimum(
    broker: Any, make_pool: Callable[[Lanes], LanePool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(Lanes(min=2))
    for lane in range(2):
        broker.join(lane, "first", STATUS)
    pool.poll()
    fail_to_start(broker, 1, monkeypatch)
    assert pool.fault() == ""


@pytest.mark.usefixtures("silent")
def test_pool_knows_the_device_of_a_lane_that_has_died(pool: LanePool) -> None:
    pool.poll()
    pool.expire_silent_lanes()
    pool.poll()
    assert pool.wait_for_lane() == STATUS


@pytest.mark.usefixtures("silent")
def test_pool_tells_notices_once_and_jobs_that_moved(
    broker: Any, pool: LanePool, caplog: pytest.LogCaptureFixture
) -> None:
    pool.poll()
    assert pool.follow_draining_nodes() == ([], [])
    pool._nodes._notices = {"a": 60.0, "b": None}
    assert pool.follow_draining_nodes() == ([Notice("a", 60.0, [0])], []), "there is no lane on the other"
    assert "node a is taken back in 60 s: lanes 0 save their trials and leave" in caplog.text
    broker.hand_back(0, "first", JOB.id, 7, saved=True)
    assert pool.follow_draining_nodes() == ([], [MovedJob(0, "mail/lora/0", "mail/lora/0", 7)])
    broker.leave(0, "first", "")
    pool._nodes._notices = {}
    assert pool.follow_draining_nodes() == ([], [])
    assert broker.status() == ({}, 1), "the job waits for another lane"


def test_pool_that_is_cancelled_before_any_lane_joins_has_none(pool: LanePool) -> None:
    pool.poll()
    pool.cancel()
    with pytest.raises(SweepError, match="no lane has started"):
        pool.wait_for_lane()
