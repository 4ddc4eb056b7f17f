from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestrator.journal.events import Journal
from orchestrator.search.allocation import Race
from orchestrator.search.budget import SpendingLimits
from orchestrator.search.core import Search
from orchestrator.search.state import STATE_EVENTS
from orchestrator.simulation.fleet import Fleet
from orchestrator.simulation.sweep import Clock, Simulation
from orchestrator.simulation.synthetic import METHODS, Synthetic

RUNGS, TRIALS, KILLS = (10, 20, 40, 80), 60, 20


class KilledError(BaseException):
    """The driver is gone."""


class KillingJournal:
    """A journal whose driver dies at some of its lines: before the line, in the middle of it, or right after it."""

    def __init__(self, path: Path, clock: Clock, moments: dict[int, str]) -> None:
        self._journal, self._path, self._moments = Journal(path, clock), path, moments
        self.lines = len(Journal.read(path))
        self.kills = 0

    def append(self, event: str, **fields: Any) -> None:
        moment = self._moments.pop(self.lines, "")
        if moment != "before":
            self._journal.append(event, **fields)
            self.lines += 1
        if moment == "torn":
            content = self._path.read_bytes()
            start = content.rfind(b"\n", 0, -1) + 1
            self._path.write_bytes(content[: start + (len(content) - start) // 2])
        if moment:
            raise KilledError


class Sweep:
    """A sweep on twelve simulated lanes, some slow, whose nodes are lost now and then, and whose driver is killed."""

    def __init__(self, folder: Path, moments: dict[int, str]) -> None:
        self.path = folder / "journal.jsonl"
        self._moments = moments
        self._clock = Clock()
        self.kills = 0
        self._curves = Synthetic(METHODS[:4], RUNGS)
        fleet = Fleet(nodes=4, lanes_per_node=3, straggling=0.3, seconds_between_losses=900.0, patience=30.0)
        self._simulation = Simulation(self._curves, RUNGS, fleet, self._clock)
        self.search = self._run_to_end()

    @property
    def lost(self) -> int:
        return self._simulation.lost

    def _run_to_end(self) -> Search:
        """Run the search to its end, with as many drivers as it takes."""
        while True:
            try:
                search = self._search()
                running = [record.key for record in search.trials() if record.state == "running"]
                self._simulation.run(search, running)
                search.close("finished")
                return search
            except KilledError:
                self.kills += 1

    def _search(self) -> Search:
        saved = Journal.read(self.path)
        return Search(
            self._curves.plans("mail"),
            RUNGS,
            storage_path=None,
            journal=KillingJournal(self.path, self._clock, self._moments),
            allocation=Race(),
            budget=SpendingLimits(trials=TRIALS),
            clock=self._clock,
            seed=3,
            saved=saved,
        )

    def events(self, *names: str) -> list[dict[str, Any]]:
        return [event for event in Journal.read(self.path) if event["event"] in names]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep(tmp_path_factory.mktemp("uninterrupted"), {})


@pytest.mark.parametrize("seed", range(3))
def test_simulation_of_twenty_kills_changes_no_result(tmp_path: Path, uninterrupted: Sweep, seed: int) -> None:
    draw = random.Random(seed)
    lines = draw.sample(range(len(Journal.read(uninterrupted.path))), KILLS)
    killed = Sweep(tmp_path, {line: draw.choice(("before", "torn", "after")) for line in lines})
    assert killed.kills == KILLS
    assert killed.lost == uninterrupted.lost > 0
    assert killed.search.trials() == uninterrupted.search.trials()
    for name in ("trial", "end"):
        counted = Counter(event["trial"] for event in killed.events(name))
        assert len(counted) == TRIALS
        assert set(counted.values()) == {1}
    rungs = Counter((event["trial"], event["step"]) for event in killed.events("rung"))
    assert set(rungs.values()) == {1}
    assert killed.events(*STATE_EVENTS) == uninterrupted.events(*STATE_EVENTS)


def test_resumed_simulation_continues_from_last_rungs(tmp_path: Path, uninterrupted: Sweep) -> None:
    saved = Journal.read(uninterrupted.path)
    cut = saved[: len(saved) // 2]
    search = Search(
        Synthetic(METHODS[:4], RUNGS).plans("mail"), RUNGS, storage_path=None,
        journal=Journal(tmp_path / "journal.jsonl"), allocation=Race(), budget=SpendingLimits(trials=TRIALS), seed=3,
        saved=cut,
    )  # fmt: skip
    running = [record for record in search.trials() if record.state == "running"]
    assert len(running) > 3
    steps = {event["trial"]: event["step"] for event in cut if event["event"] == "rung"}
    again = [search.ask() for _ in running]
    assert all(again)
    assert {proposal.key: proposal.start for proposal in again if proposal} == {
        record.key: steps.get(str(record.key), 0) for record in running
    }
    assert any(proposal and proposal.start for proposal in again)
