"""The broker as an actor of Ray, with more callers than it has threads."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from orchestrator.common.trial_types import Answer, Job, TrialKey
from orchestrator.lanes.broker import LaneStatus, start_broker
from orchestrator.lanes.cluster import Cluster

from ..polling import until
from .test_group import NOISE

pytestmark = [pytest.mark.ray, *(pytest.mark.filterwarnings(line) for line in NOISE)]
JOBS, LANES = 300, 20


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        cluster.wait_until_connected()
        yield cluster


def job(number: int) -> Job:
    return Job(trial=TrialKey("mail/lora", number), params={}, seed=0, start=0, stop=5, total=5)


@pytest.mark.usefixtures("cluster")
def test_broker_needs_no_thread_for_a_job_that_waits() -> None:
    import ray

    broker = start_broker(1)
    ray.get(broker.status.remote())
    (process,) = (p for p in psutil.Process().children(recursive=True) if p.cmdline()[:1] == ["ray::Broker"])
    answers = [broker.run.remote(job(number)) for number in range(JOBS)]
    until(lambda: ray.get(broker.status.remote())[1] == JOBS)
    joins = [broker.join.remote(lane, "first", LaneStatus()) for lane in range(LANES + 1)]
    ray.get(joins, timeout=60)
    taken: list[Job] = ray.get([broker.take.remote(0, "first", True) for _ in range(JOBS)], timeout=60)
    waiting_lanes = [broker.take.remote(lane, "first", True) for lane in range(1, LANES + 1)]
    assert ray.get(broker.status.remote(), timeout=60)[1] == 0, "it serves other calls past all that wait"
    threads = process.num_threads()
    print(f"{threads} threads while {JOBS} jobs and {LANES} lanes wait")
    assert threads < JOBS / 4, "Ray has some of its own"
    for each in taken:
        broker.done.remote(0, "first", each.id, Answer(status="done", step=each.trial.number))
    assert [answer.step for answer in ray.get(answers, timeout=60)] == list(range(JOBS))
    ray.get(broker.close.remote(), timeout=60)
    ray.get(waiting_lanes, timeout=60)
