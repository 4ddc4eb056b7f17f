"""Lanes as Ray Train's workers, with a lane that trains nothing and dies of a poison job."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.common.trial_types import Answer, Job, TrialKey
from orchestrator.lanes import group as module
from orchestrator.lanes.broker import LaneStatus, start_broker
from orchestrator.lanes.cluster import Cluster
from orchestrator.lanes.group import LaneGroups, LaneShape

from ..polling import until

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
        ray.get(broker.enter.remote(lane, ray.util.get_current_placement_group()))
        while (setup := ray.get(broker.setup.remote(lane))) is None:
            continue
        if setup is Signal.RETIRE:
            return
        if setup == "no start":
            ray.get(broker.report_failed_start.remote(lane, "no GPU"))
            raise RuntimeError("no GPU")
        nodes = (ray.get_runtime_context().get_node_id(),)
        ray.get(broker.join.remote(lane, life, LaneStatus(nodes=nodes, pid=os.getpid())))
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


class Site:
    """Groups of frail lanes on a cluster of this machine, and jobs for them."""

    def __init__(
        self,
        folder: Path,
        sizes: list[int],
        setup: Any = "anything",
        cpus: float = 0.5,
        nodes: Sequence[str | None] = (),
    ) -> None:
        import ray

        self.lanes, self.get = sum(sizes), ray.get
        self.broker = start_broker(1)
        self.groups = LaneGroups(self.broker, sizes, LaneShape(cpus), str(folder), nodes)
        ray.get(self.broker.open.remote(setup))

    def pids(self) -> dict[int, int]:
        """Wait until all lanes are there; returns their processes."""
        return {lane: status.pid for lane, status in until(self._all_lanes).items()}

    def nodes(self) -> list[str]:
        """Wait until all lanes are there; returns the node of each."""
        return [node for _, status in sorted(until(self._all_lanes).items()) for node in status.nodes]

    def _all_lanes(self) -> dict[int, LaneStatus]:
        lanes, _ = self.get(self.broker.status.remote())
        return lanes if len(lanes) == self.lanes else {}

    def others_than(self, pids: dict[int, int], lanes: Sequence[int]) -> dict[int, int]:
        """Wait until new processes have taken the places of these lanes'."""

        def renewed() -> dict[int, int]:
            current = self.pids()
            return current if all(current[lane] != pids[lane] for lane in lanes) else {}

        return until(renewed)

    def work(self, *numbers: int) -> set[str]:
        """Let lanes do jobs; returns how these end."""
        jobs = [self.broker.run.remote(job(number)) for number in numbers]
        return {answer.status for answer in self.get(jobs, timeout=120)}

    def close(self) -> None:
        self.groups.let_retire()
        self.get(self.broker.close.remote())
        assert self.groups.join(60.0), "lanes that died and came back retire like the others"
        assert self.groups.errors == []


@pytest.fixture
def make_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Site]]:
    monkeypatch.setattr(module, "lane_loop", frail_lane())
    with Cluster() as cluster:
        cluster.wait_until_connected()
        yield partial(Site, tmp_path)


def helpers() -> set[str]:
    return {word for process in psutil.Process().children(recursive=True) for word in process.cmdline()[:1]}


def test_lane_groups_survive_a_job_that_kills_its_lane(make_site: Callable[..., Site]) -> None:
    site = make_site([2])
    jobs = [job(number, poison=number == 1) for number in range(6)]
    answers: list[Answer] = site.get([site.broker.run.remote(submitted) for submitted in jobs], timeout=120)
    assert [answer.status for answer in answers] == ["done", "failed", *["done"] * 4]
    assert "died 2 times" in answers[1].reason
    assert site.work(*range(10, 14)) == {"done"}
    names = helpers()
    unneeded = {"ray::DatasetManager", "ray::PlacementGroupCleaner", "ray::_AutoscalingCoordinatorActor"}
    assert "ray::SynchronizationActor" in names, "Ray names its helper processes like this"
    assert not names & unneeded, "helpers that lanes do not need are not started"
    site.close()


def test_lane_group_survives_two_deaths_at_once(make_site: Callable[..., Site]) -> None:
    site = make_site([3])
    pids = site.pids()
    for lane in (0, 1):
        os.kill(pids[lane], signal.SIGKILL)
    assert site.others_than(pids, (0, 1))[2] == pids[2], "the healthy lane is left alone"
    assert site.work(*range(6)) == {"done"}
    site.close()


def test_lane_group_starts_again_when_its_controller_is_killed(make_site: Callable[..., Site]) -> None:
    site = make_site([2], cpus=1.0)  # all cores: the dead controller's placement group would be in the way
    pids = site.pids()
    (controller,) = (p for p in psutil.Process().children(recursive=True) if "TrainController" in p.cmdline()[0])
    controller.kill()
    site.others_than(pids, (0, 1))
    assert site.work(*range(4)) == {"done"}
    site.close()


def test_lane_groups_are_given_up_when_no_lane_can_start(make_site: Callable[..., Site]) -> None:
    site = make_site([1], setup="no start")
    until(lambda: not site.groups.alive())
    assert site.get(site.broker.given_up.remote()) == {0: "lane 0 could not start, tried 4 times: no GPU"}
    assert site.groups.errors == []


def test_lane_group_without_processes_is_given_up(
    make_site: Callable[..., Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempt in range(1, module.GROUP_START_LIMIT + 1):
        (tmp_path / f"lanes-0-{attempt}").write_text("Ray Train cannot make its folder here")
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    site = make_site([1])
    until(lambda: not site.groups.alive())
    (error,) = site.groups.errors
    assert error.startswith("lanes 0 to 0 could not start, tried 4 times: ")


def test_lane_groups_that_are_not_needed_retire(make_site: Callable[..., Site]) -> None:
    site = make_site([2, 1])
    assert site.work(*range(6)) == {"done"}
    site.pids()
    site.groups.retire(2)
    until(lambda: site.groups.ended_lanes == 1 and sum(group.alive() for group in site.groups._groups) == 1)
    site.lanes = 2
    pids = site.pids()
    os.kill(pids[0], signal.SIGKILL)
    assert site.work(*range(10, 14)) == {"done"}, "the group that stays starts its lanes again"
    site.close()


def test_lane_group_that_waits_for_a_node_retires(make_site: Callable[..., Site], monkeypatch: Any) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")  # a minute by default
    site = make_site([2, 2], cpus=1.0)
    until(lambda: len(site.get(site.broker.status.remote())[0]) == 2)
    site.groups.retire(1)
    until(lambda: sum(group.alive() for group in site.groups._groups) == 1)
    site.close()


@pytest.mark.exhaustive
def test_lane_group_survives_ten_times_two_deaths_at_once(make_site: Callable[..., Site]) -> None:
    site, number, left_alone = make_site([3]), 0, 0
    pids = site.pids()
    for _ in range(10):
        jobs = [site.broker.run.remote(job(number + k)) for k in range(30)]
        number += 30
        for lane in (0, 1):
            os.kill(pids[lane], signal.SIGKILL)
        assert {answer.status for answer in site.get(jobs, timeout=120)} == {"done"}
        renewed = site.others_than(pids, (0, 1))
        left_alone += renewed[2] == pids[2]
        pids = renewed
    print(f"10 of 10 times back; the third lane was left alone {left_alone} times")
    site.close()
