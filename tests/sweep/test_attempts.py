"""Sweeps whose driver dies at any event and that are resumed, without Ray: fake lanes answer at once."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from orchestrator.backbone.publish import PreparedBackbone
from orchestrator.backbone.store import Published
from orchestrator.common.errors import InputError, SweepError
from orchestrator.common.trial_types import Answer, Job, checkpoint_path
from orchestrator.final import register
from orchestrator.journal import events as journal_events
from orchestrator.journal.events import JournalError
from orchestrator.lanes import pool
from orchestrator.lanes.broker import LaneStatus
from orchestrator.lanes.cluster import Cluster
from orchestrator.lanes.endings import Cause
from orchestrator.lanes.tune_bridge import TuneBridge
from orchestrator.planning.plan import SweepPlan
from orchestrator.search.core import Search
from orchestrator.search.optuna_file import OptunaFile
from orchestrator.search.plans import Decision
from orchestrator.sweep import prepare
from orchestrator.sweep import runner as sweep
from orchestrator.sweep import search_phase as searching
from orchestrator.sweep.runner import Outcome, resume_sweep
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.sweep.status import Snapshot
from orchestrator.tracking import mlflow_exporter as exporter
from orchestrator.tracking.connection import retry_while_away
from orchestrator.tracking.registry import Registered

from ..final.test_final import Lanes
from ..small_disk import SmallDisk, small_disk
from ..small_plan import small_plan

METHODS = ["lora", "ia3"]
TRIALS = 8
NEVER = 10**9
PAGE = 4096


def refuse() -> None:
    raise ConnectionError("refused")


class KilledError(BaseException):
    """The driver died."""


class World:
    """Everything outside the driver: lanes and storage, which survive it, and when it dies or is stopped.

    Args:
        folder: the sweep's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lanes = Lanes(folder, right=dict.fromkeys(METHODS, (8, 6)))
        self.registrations = 0
        self.registers = METHODS
        self.registry_is_away = False
        self.events_left = NEVER
        self.checksum = "c"
        self.stop, self.cancelled = Event(), Event()
        self.stop_at = self.fill_at = NEVER
        self.disk: SmallDisk | None = None
        self.one_event_at_a_time = threading.RLock()

    def event(self) -> None:
        """Count an event before it is written; die or stop when it is due."""
        self.events_left -= 1
        self.stop_at -= 1
        if self.events_left < 0:
            raise KilledError
        if self.stop_at < 0:
            self.stop.set()
        self.fill_at -= 1
        if self.fill_at == 0 and self.disk:
            self.fill(self.disk)

    def fill(self, disk: SmallDisk) -> None:
        """Fill the disk, and the rest of the journal's last page, which a full disk still takes."""
        with (self.folder / "journal.jsonl").open("a") as journal:
            rest = -journal.tell() % PAGE
            journal.write(json.dumps({"time": 0.0, "event": "", "text": "x" * (rest - 60)}) + "\n")
        disk.fill()

    def each(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Answer]]:
        for job in jobs:  # a job whose answer was lost is repeated, and writes the same folder
            folder = f"{checkpoint_path(job.trial, job.stop, job.retraining)}-test"
            shutil.rmtree(self.folder / folder, ignore_errors=True)
            (answer,) = self.lanes([job])
            yield job, answer


class FakePool:
    """Lanes that answer at once."""

    count, pack, jobs, expected = 2, 1, 3, 2

    def __init__(self, world: World) -> None:
        self._world, self.run_jobs = world, world.each
        self.lanes = self.all_lanes = {0: LaneStatus()}

    def open(self, setup: Any) -> None: ...

    def status(self) -> str:
        """Return the status of a job that is answered now: lanes answer after a request to stop has reached them."""
        if not self._world.stop.is_set():
            return "done"
        assert self._world.cancelled.wait(60)
        return "cancelled"

    def expire_silent_lanes(self) -> None: ...

    def retire(self, needed: int) -> None: ...

    def follow_draining_nodes(self) -> tuple[list[Any], list[Any]]:
        return [], []

    def poll(self) -> dict[int, LaneStatus]:
        return self.lanes

    def fault(self) -> str:
        return ""

    def wait_for_lane(self) -> LaneStatus:
        return self.lanes[0]

    def cancel(self) -> None:
        self._world.cancelled.set()


class FakeExporter:
    pending = refused = 0
    experiment_id = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def start(self) -> None: ...

    def close(self, timeout: float) -> None: ...

    def parent_run_id(self, task: str) -> str:
        return task

    def run_id(self, trial: str) -> str | None:
        return trial


def score(params: Any, number: int, step: int) -> float:
    return (number * 7 % 11) / 20 + step / 100


def fake_tune(search: Search, plan: SweepPlan, pool: FakePool, folder: str) -> None:
    """Run two trials at a time, and let each climb one rung in turn."""
    bridge, names, at_work = TuneBridge(search), iter(range(NEVER)), dict[str, tuple[Any, int]]()
    while True:
        while len(at_work) < 2:
            name = str(next(names))
            if (proposal := bridge.begin(name)) is None:
                break
            at_work[name] = (proposal, proposal.start)
        if not at_work:
            assert search.exhausted or search.closed
            return
        for name, (proposal, start) in list(at_work.items()):
            step = next(rung for rung in plan.rungs if rung > start)
            value = score(proposal.params, proposal.key.number, step)
            report = {
                "status": pool.status(),
                "step": step,
                "value": value,
                "metrics": {},
                "measurements": {"train_seconds": step},
            }
            at_work[name] = (proposal, step)
            if bridge.deliver(name, report) is not Decision.CONTINUE:
                bridge.end(name, Cause.TUNE_ENDED, "")
                del at_work[name]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "tiny-1")
    world.folder.mkdir()

    class MortalJournal(journal_events.Journal):
        def append(self, event: str, **fields: Any) -> None:
            with world.one_event_at_a_time:  # else another thread writes while the disk is filled
                world.event()
                super().append(event, **fields)

    def prepared(plan: SweepPlan, *args: Any, **settings: Any) -> Any:
        backbone = PreparedBackbone(Published("d", 1, 1, fresh=False), None, world.checksum)
        return None, dict.fromkeys(plan.tasks, backbone)

    class FakeRegistrar:
        def __init__(self, **fields: Any) -> None: ...

        def register_all(self) -> dict[str, Registered]:
            world.registrations += 1
            if world.registry_is_away:
                retry_while_away(refuse)
            first, *others = world.registers
            versions = {method: Registered("mail", number, "") for number, method in enumerate(others, 2)}
            return {first: Registered("mail", 1, "champion"), **versions}

    @contextmanager
    def lane_pool(*args: Any, **kwargs: Any) -> Iterator[FakePool]:
        yield FakePool(world)

    monkeypatch.setattr(sweep, "output_to", lambda log: nullcontext())
    monkeypatch.setattr(pool, "lane_pool", lane_pool)
    monkeypatch.setattr(prepare, "prepare", prepared)
    monkeypatch.setattr(searching, "tune_search", fake_tune)
    monkeypatch.setattr(register, "Registrar", FakeRegistrar)
    monkeypatch.setattr(exporter, "MlflowExporter", FakeExporter)
    monkeypatch.setattr(journal_events, "Journal", MortalJournal)
    monkeypatch.setattr("orchestrator.report.ending.report_at_end", lambda folder, tracking_uri: None)
    monkeypatch.setattr("orchestrator.common.background.INTERVAL_S", 0.002)
    # A killed driver writes nothing more to Optuna's file; here the garbage collector would flush it later.
    monkeypatch.setattr("orchestrator.search.core.open_storage", lambda path: OptunaFile(None))
    return world


def plan_in(folder: Path, **changes: Any) -> SweepPlan:
    settings = {"budget": {"trials": TRIALS}, "search": {"min_results": 2}, "selection": {"seeds": 2}}
    return small_plan(METHODS, storage=str(folder.parent), **{**settings, **changes})


class NoCluster(Cluster):
    """A cluster that is never connected."""

    def wait_until_connected(self) -> None: ...

    def disconnect(self) -> None: ...


def attempt(world: World, events: int = NEVER, **changes: Any) -> Outcome:
    """Run one driver, which dies after a number of events."""
    world.events_left = events
    plan = plan_in(world.folder, **changes)
    return resume_sweep(plan, SavedSweep.of(world.folder), cluster=NoCluster(), watch=lambda _: None, stop=world.stop)


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [dict(event) for event in SavedSweep.of(folder).events]


def without_attempts(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events that every attempt repeats alike, without times and processes."""
    changing = {"time": 0, "began": 0, "pid": 0}
    return [{**event, **changing} for event in events if event["event"] not in ("resume", "close")]


def assert_whole(events: list[dict[str, Any]]) -> None:
    kinds = Counter(event["event"] for event in events)
    began = Counter(event["trial"] for event in events if event["event"] == "trial")
    ended = Counter(event["trial"] for event in events if event["event"] == "end")
    assert began == ended
    assert set(began.values()) == {1}
    assert len(began) == TRIALS
    rungs = [(event["trial"], event["step"]) for event in events if event["event"] == "rung"]
    assert len(set(rungs)) == len(rungs)
    answers = [event["job"] for event in events if event["event"] == "answer"]
    assert len(set(answers)) == len(answers)
    assert (kinds["sweep"], kinds["searched"], kinds["selection"], kinds["registered"]) == (1, 1, 1, 1)
    assert (events[-1]["event"], events[-1]["reason"]) == ("close", "finished")


def test_resume_after_death_at_any_event_gives_the_same_result(world: World, tmp_path: Path) -> None:
    undisturbed = attempt(world)
    assert undisturbed.reason == "finished"
    events = events_of(world.folder)
    assert_whole(events)
    for killed in range(1, len(events), 3):
        world.folder = world.lanes.folder = tmp_path / f"killed-{killed}" / "tiny-1"
        world.folder.mkdir(parents=True)
        world.registrations = 0
        with pytest.raises(KilledError):
            attempt(world, killed)
        assert len(events_of(world.folder)) == killed
        outcome = attempt(world)
        assert_whole(events_of(world.folder))
        assert outcome.tasks["mail"].registered == undisturbed.tasks["mail"].registered
        assert world.registrations <= 1 + (events[killed]["event"] == "registered")
        assert outcome.tasks["mail"].selection.recommended == undisturbed.tasks["mail"].selection.recommended


def test_resume_after_many_deaths_finishes_the_sweep(world: World) -> None:
    attempts = 0
    while not SavedSweep.of(world.folder).finished:
        attempts += 1
        try:
            attempt(world, 6)
        except KilledError:
            continue
    assert attempts > 5
    assert_whole(events_of(world.folder))
    assert SavedSweep.of(world.folder).attempts == attempts


def test_interruption_leaves_trials_open_and_closes_the_journal(world: World) -> None:
    world.stop_at = 12  # in the middle of the search
    assert attempt(world).reason == "interrupted"
    events = events_of(world.folder)
    assert (events[-1]["event"], events[-1]["reason"]) == ("close", "interrupted")
    assert SavedSweep.of(world.folder).trials_left > 0
    assert "killed" not in {event.get("state") for event in events}
    world.stop.clear()
    world.stop_at = NEVER
    assert attempt(world).reason == "finished"
    assert_whole(events_of(world.folder))


def test_resume_refuses_another_backbone_and_writes_nothing(world: World) -> None:
    with pytest.raises(KilledError):
        attempt(world, 10)
    before = events_of(world.folder)
    world.checksum = "another"
    with pytest.raises(InputError, match=r"backbone\.mail: the checkpoint has changed"):
        attempt(world)
    assert events_of(world.folder) == before


def test_failed_sweep_leaves_trials_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(search: Search, *args: Any) -> None:
        search.ask()
        raise SweepError("every lane has ended")

    tune: Callable[..., None] = searching.tune_search
    monkeypatch.setattr(searching, "tune_search", fail)
    with pytest.raises(SweepError):
        attempt(world)
    assert events_of(world.folder)[-1]["message"] == "every lane has ended"
    assert SavedSweep.of(world.folder).trials_left == 1
    monkeypatch.setattr(searching, "tune_search", tune)
    assert attempt(world).reason == "finished"
    assert_whole(events_of(world.folder))


def test_full_disk_stops_the_sweep_which_is_then_resumed(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=4096) as disk:
        world.disk, world.fill_at = disk, 12  # in the middle of the search
        world.folder = world.lanes.folder = disk.folder / "tiny-1"
        world.folder.mkdir()
        with pytest.raises(JournalError, match=r"journal\.jsonl cannot be written: No space left on device"):
            attempt(world)
        events = events_of(world.folder)
        assert len(events) > 4
        assert SavedSweep.of(world.folder).search_ended is None
        disk.resize(8192)
        assert attempt(world).reason == "finished"
        assert_whole(events_of(world.folder))
        assert events_of(world.folder)[: len(events)] == events


def test_interruption_while_it_registers_keeps_the_result(world: World) -> None:
    world.registry_is_away = True
    waits: list[str] = []

    def watch(snapshot: Snapshot) -> None:
        if snapshot.waiting:
            waits.append(snapshot.doing)
            world.stop.set()

    plan = plan_in(world.folder)
    outcome = resume_sweep(plan, SavedSweep.of(world.folder), cluster=NoCluster(), watch=watch, stop=world.stop)
    assert re.fullmatch(
        r"registering: MLflow cannot be reached, trying until \d\d:\d\d:\d\d; Ctrl-C keeps the result \(refused\)",
        waits[0],
    )
    assert outcome.reason == "interrupted"
    assert outcome.tasks["mail"].champion.method in METHODS
    assert outcome.tasks["mail"].unregistered == "the sweep was stopped before that"
    assert SavedSweep.of(world.folder).can_resume
    world.registry_is_away = False
    world.stop.clear()
    assert attempt(world).tasks["mail"].registered is not None


def test_resume_registers_a_tied_method_that_was_not(world: World) -> None:
    world.registers = ["lora"]
    assert attempt(world).reason == "finished"
    (selection,) = [event for event in events_of(world.folder) if event["event"] == "selection"]
    assert set(selection["tied"]) == set(METHODS)
    assert SavedSweep.of(world.folder).unregistered_ties("mail") == {"ia3"}
    assert not SavedSweep.of(world.folder).finished
    world.registers = METHODS
    assert attempt(world).reason == "finished"
    assert SavedSweep.of(world.folder).finished
    *_, registered = [event for event in events_of(world.folder) if event["event"] == "registered"]
    assert registered["methods"].keys() == set(METHODS)
    assert world.registrations == 2


def test_resume_counts_time_of_earlier_attempts(world: World) -> None:
    plan = plan_in(world.folder)
    with pytest.raises(KilledError):
        attempt(world, 10)
    saved = SavedSweep.of(world.folder)
    long = replace(
        saved, events=tuple({**event, "time": event["time"] + 1000 * (n > 0)} for n, event in enumerate(saved.events))
    )
    assert long.wall_seconds > 1000
    snapshots: list[Any] = []
    world.events_left = NEVER
    outcome = resume_sweep(plan, long, cluster=NoCluster(), watch=snapshots.append, stop=world.stop)
    assert outcome.wall_seconds > 1000
    assert min(snapshot.elapsed for snapshot in snapshots) > 1000
