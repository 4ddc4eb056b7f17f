"""Lanes as Ray Train's workers, with a lane that trains nothing and dies of a poison job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.common.trial_types import Answer, Job, TrialKey
from orchestrator.lanes import group as module
from orchestrator.lanes.broker import start_broker
from orchestrator.lanes.cluster import Cluster
from orchestrator.lanes.group import LaneGroups, LaneShape

NOISE = (  # Ray's own
    "ignore:.*:DeprecationWarning:ray.*",
    "ignore:.*:FutureWarning:ray.*",
    "ignore:.*RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO:FutureWarning",
    "ignore:unclosed:ResourceWarning",
    "ignore:subprocess .* is still running:ResourceWarning",
)
pytestmark = [pytest.mark.ray, *(pytest.mark.filterwarnings(line) for line in NOISE)]


def frail_lane() -> Any:
    """A function without a module, so that workers need not have this one."""

    def lane_loop(config: dict[str, Any]) -> None:
        import os
        import signal
        import uuid

        import ray
        from ray import train

        from orchestrator.common.trial_types import Answer, Job
        from orchestrator.lanes.broker import LaneStatus, Signal

        broker, life = config["broker"], uuid.uuid4().hex
        lane = config["first"] + train.get_context().get_world_rank()
        while ray.get(broker.setup.remote()) is None:
            continue
        ray.get(broker.join.remote(lane, life, LaneStatus(pid=os.getpid())))
        while (job := ray.get(broker.take.remote(lane, life, True))) is not Signal.RETIRE:
            if isinstance(job, Job):
                if job.params["poison"]:
                    os.kill(os.getpid(), signal.SIGKILL)
                answer = Answer(status="done", step=job.stop, measurements={"lane": lane, "pid": os.getpid()})
                ray.get(broker.done.remote(lane, life, job.id, answer))

    return lane_loop


def job(number: int, poison: bool = False) -> Job:
    key = TrialKey("mail/lora", number)
    return Job(trial=key, params={"poison": poison}, seed=0, start=0, stop=5, total=5)


def test_lane_groups_survive_a_job_that_kills_its_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lane_loop", frail_lane())
    with Cluster() as cluster:
        cluster.wait_until_connected()
        import ray

        broker = start_broker(2, 32, 2)
        groups = LaneGroups(broker, [2], LaneShape(1.0), str(tmp_path))
        ray.get(broker.open.remote("anything"))
        jobs = [job(number, poison=number == 1) for number in range(6)]
        answers: list[Answer] = ray.get([broker.run.remote(submitted) for submitted in jobs], timeout=120)
        assert [answer.status for answer in answers] == ["done", "failed", *["done"] * 4]
        assert "died 2 times" in answers[1].reason
        after: list[Answer] = ray.get([broker.run.remote(job(number)) for number in range(10, 14)], timeout=120)
        assert {answer.status for answer in after} == {"done"}
        names = {word for process in psutil.Process().children(recursive=True) for word in process.cmdline()[:1]}
        helpers = {"ray::DatasetManager", "ray::PlacementGroupCleaner", "ray::_AutoscalingCoordinatorActor"}
        assert "ray::SynchronizationActor" in names, "Ray names its helper processes like this"
        assert not names & helpers, "helpers that lanes do not need are not started"
        ray.get(broker.close.remote())
        assert groups.join(60.0), "lanes that died and came back retire like the others"
        assert groups.errors == []
