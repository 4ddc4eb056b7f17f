"""A lane whose node is taken back hands its trials to another, which goes on from the very step."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, partial_state_path
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes import preemption as module
from orchestrator.lanes.broker import LaneStatus, Signal
from orchestrator.lanes.preemption import MovedJob, NodeWatch
from orchestrator.lanes.worker_memory import WorkerMemory

from ..engine.conftest import Lab, train
from .test_lost_checkpoint import LOSSES, fresh_memory
from .test_worker import DEADLINE, Site, make_site, until

__all__ = ["make_site"]
STATUS = LaneStatus(nodes=("node",))
METHODS = ("lora", "adapter", "prefix")


class Steps:
    """Counts every optimizer step, and has the first lane's node taken back at the sixth."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch, notice_at: int = 6) -> None:
        self.count: dict[str, list[int]] = {}
        finish, notified = TrialRun.finish_step, threading.Event()

        def finish_step(run: TrialRun, *arguments: Any) -> None:
            finish(run, *arguments)
            self.count.setdefault(run.job.name, []).append(run.step)
            if run.step == notice_at and not notified.is_set():
                notified.set()
                site.broker.drain({"node"}, set())
                until(lambda: site.workers[0].heartbeat.reply.leave)

        monkeypatch.setattr(TrialRun, "finish_step", finish_step)


def metrics(answers: list[Future[Answer]]) -> list[tuple[str, dict[str, float], dict[str, float]]]:
    done = [answer.result(DEADLINE) for answer in answers]
    return [(answer.status, answer.metrics, answer.validation) for answer in done]


def start_elsewhere(site: Site) -> None:
    """Start another lane, on a node that stays."""
    site.broker._draining.clear()
    site.start_lane(1)


@pytest.mark.parametrize("pack", [1, 3])
@pytest.mark.parametrize("notice_at", [6, 12])
def test_preempted_trials_go_on_elsewhere_with_equal_bits(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch, pack: int, notice_at: int
) -> None:
    jobs = [lab.job(method, number) for number, method in enumerate(METHODS)]
    undisturbed = make_site(pack)
    undisturbed.start_lane()
    expected = metrics(undisturbed.submit(*jobs))
    undisturbed.broker.close()

    site = make_site(pack)
    steps = Steps(site, monkeypatch, notice_at)
    answers = site.submit(*jobs)
    until(lambda: site.broker.status()[1] == 3)
    site.start_lane().result(DEADLINE)
    moved = site.broker.drain(set(), set())
    assert [job.step for job in moved] == [notice_at] * pack, "no step is lost"
    assert site.broker.status() == ({}, 3), "all jobs wait for another lane"
    start_elsewhere(site)
    assert metrics(answers) == expected
    assert all(count == list(range(1, 13)) for count in steps.count.values()), "each step is trained once"
    assert len(steps.count) == 3


def test_preempted_final_training_goes_on_from_its_step(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(lab.job("lora"), split="test", retraining=0, partial_state_every=4)
    undisturbed = make_site()
    undisturbed.start_lane()
    expected = metrics(undisturbed.submit(job))
    undisturbed.broker.close()
    shutil.rmtree(undisturbed.folder / "sweep")
    site = make_site()
    steps = Steps(site, monkeypatch, notice_at=6)
    answers = site.submit(job)
    site.start_lane().result(DEADLINE)
    start_elsewhere(site)
    assert metrics(answers) == expected
    assert steps.count == {job.name: list(range(1, 13))}


def test_idle_lane_leaves_at_the_notice(make_site: Callable[..., Site]) -> None:
    site = make_site()
    lane = site.start_lane()
    until(lambda: site.broker._changed._waiters and site.broker.status()[0])
    site.broker.drain({"another node"}, set())
    assert not lane.done()
    site.broker.drain({"node"}, set())
    lane.result(DEADLINE / 10)  # well before its poll would end
    assert site.broker.status()[0] == {}


def test_lane_leaves_once_its_finished_jobs_are_answered(
    make_site: Callable[..., Site], lab: Lab, may_upload: threading.Event
) -> None:
    site = make_site()
    lane = site.start_lane()
    (answer,) = site.submit(lab.job("lora"))
    until(lambda: site.workers[0].writing and not site.workers[0].active)
    site.broker.drain({"node"}, set())
    until(lambda: site.broker._table.is_leaving(0, site.workers[0].incarnation))
    may_upload.set()
    lane.result(DEADLINE)
    assert answer.result(DEADLINE).status == "done"
    assert site.broker.drain(set(), set()) == [], "no job has moved"


def test_notice_too_short_keeps_what_is_saved_and_counts_no_death(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is gone while the second of three states is uploaded."""
    uploads, dead, upload = list[str](), threading.Event(), Storage.upload

    def die_in_the_second(storage: Storage, source: Any, path: str) -> None:
        uploads.append(path)
        if len(uploads) == 2:
            site.broker.drain(set(), {"node"})
            dead.set()
            raise SystemExit
        upload(storage, source, path)

    site = make_site(3)
    steps = Steps(site, monkeypatch)
    monkeypatch.setattr(Storage, "upload", die_in_the_second)
    answers = site.submit(*(lab.job(method, number) for number, method in enumerate(METHODS)))
    until(lambda: site.broker.status()[1] == 3)
    with pytest.raises(SystemExit):
        site.start_lane().result(DEADLINE)
    assert dead.is_set()
    waiting = site.broker._table._queue.values()
    assert [(entry.deaths, entry.must_be_alone) for entry in waiting] == [(0, False)] * 3, "no trial is at fault"
    start_elsewhere(site)
    assert [status for status, *_ in metrics(answers)] == ["done"] * 3
    assert sorted(len(count) for count in steps.count.values()) == [12, 18, 18]


def test_trial_whose_state_cannot_be_saved_goes_on_from_its_rung(
    make_site: Callable[..., Site], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Storage.upload

    def refuse(storage: Storage, source: Any, path: str) -> None:
        if "under-way" in path:
            raise OSError("no space left")
        upload(storage, source, path)

    monkeypatch.setattr(Storage, "upload", refuse)
    site = make_site()
    steps = Steps(site, monkeypatch)
    job = lab.job("lora")
    answers = site.submit(job)
    site.start_lane().result(DEADLINE)
    assert site.broker.drain(set(), set()) == [MovedJob(0, str(job.trial), job.name, 0)]
    start_elsewhere(site)
    assert metrics(answers)[0][0] == "done"
    assert steps.count[job.name] == [*range(1, 7), *range(1, 13)]


@pytest.mark.parametrize("lost", ["", *LOSSES])
def test_state_of_a_preempted_trial_is_used_only_if_whole(
    lost: str, lab: Lab, memory: WorkerMemory, caplog: pytest.LogCaptureFixture
) -> None:
    train(run := memory.begin(lab.job("lora", stop=4)), 4)
    paused = memory.finish_job(run).upload()
    job = lab.job("lora", start=4, checkpoint=paused.checkpoint)
    train(run := memory.begin(job), 3)
    assert memory.save_for_another_lane(run)
    assert fresh_memory(memory).begin(job).step == 4, "the state is not looked for without a lane's word"
    if lost:
        LOSSES[lost](Path(memory.setup.storage) / "mail-1" / partial_state_path(job))
    resumed = fresh_memory(memory).begin(replace(job, has_partial_state=True))
    assert resumed.step == (4 if lost else 7)
    assert ("starts again at step 4" in caplog.text) == (lost not in ("", "all of it"))


def test_lane_leaves_a_draining_node_that_it_joins_from(make_site: Callable[..., Site]) -> None:
    """Its process was started again there just before the notice."""
    broker = make_site().broker
    broker.join(0, "first", STATUS)
    broker.drain({"node"}, set())
    broker.join(0, "second", STATUS)
    assert broker.take(0, "second", True) is Signal.LEAVE
    broker.drain(set(), {"node"})
    assert broker.status() == ({}, 0)
    broker.join(0, "third", replace(STATUS, nodes=("another",)))
    assert broker.take(0, "third", False) is None, "it works on elsewhere"


def test_node_watch_tells_new_draining_and_gone_nodes_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, notices = threading.Semaphore(0), dict[str, float | None]()

    def draining_nodes() -> dict[str, float | None]:
        asked.release()
        return dict(notices)

    monkeypatch.setattr(module, "draining_nodes", draining_nodes)
    monkeypatch.setattr(module, "own_node", lambda: "head")
    monkeypatch.setattr(module, "INTERVAL_S", 0.001)
    watch = NodeWatch()

    def news(**changed: float | None) -> module.Nodes:
        notices.clear()
        notices.update(changed)
        for _ in range(3):  # the second request began after the change, and at the third its result is known
            asked.acquire()
        return watch.news()

    with caplog.at_level(logging.WARNING):
        watch.start()
        assert news() == module.Nodes({}, frozenset(), frozenset())
        assert news(a=30.0, head=90.0) == module.Nodes({"a": 30.0}, frozenset("a"), frozenset())
        assert news(a=29.0, b=None) == module.Nodes({"b": None}, frozenset("ab"), frozenset())
        assert news(b=None) == module.Nodes({}, frozenset("b"), frozenset("a"))
        watch.end()
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "driver's node" in line] == [
        "the driver's node is taken back in 90 s; the sweep ends with it, and is resumed with peft-sweep resume"
    ]
