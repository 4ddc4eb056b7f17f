from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestrator.search.allocation import Race
from orchestrator.search.budget import Limits
from orchestrator.search.core import Search
from orchestrator.search.state import CHANGES
from orchestrator.simulation.fleet import Fleet
from orchestrator.simulation.sweep import Clock, Simulation
from orchestrator.simulation.synthetic import METHODS, Synthetic
from orchestrator.tracking.journal import Journal

RUNGS, TRIALS, KILLS = (10, 20, 40, 80), 60, 20


class KilledError(BaseException):
    """The driver is gone."""


class Mortal:
    """A journal whose driver dies at some of its lines: before it, in the middle of it, or right after it."""

    def __init__(self, path: Path, clock: Clock, at: dict[int, str]) -> None:
        self._journal, self._path, self._at = Journal(path, clock), path, at
        self.lines = len(Journal.read(path))
        self.deaths = 0

    def append(self, event: str, **fields: Any) -> None:
        how = self._at.pop(self.lines, "")
        if how != "before":
            self._journal.append(event, **fields)
            self.lines += 1
        if how == "torn":
            whole = self._path.read_bytes()
            start = whole.rfind(b"\n", 0, -1) + 1
            self._path.write_bytes(whole[: start + (len(whole) - start) // 2])
        if how:
            raise KilledError


class Sweep:
    """A sweep on twelve simulated lanes, some slow, whose nodes are lost now and then, and whose driver is killed."""

    def __init__(self, folder: Path, at: dict[int, str]) -> None:
        self.path = folder / "journal.jsonl"
        self._at = at
        self._clock = Clock()
        self.kills = 0
        self._curves = Synthetic(METHODS[:4], RUNGS)
        fleet = Fleet(nodes=4, lanes_per_node=3, straggling=0.3, seconds_between_losses=900.0, patience=30.0)
        self._simulation = Simulation(self._curves, RUNGS, fleet, self._clock)
        self.search = self._lives()

    @property
    def lost(self) -> int:
        return self._simulation.lost

    def _lives(self) -> Search:
        """The search to its end, through as many drivers as it takes."""
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
            journal=Mortal(self.path, self._clock, self._at),
            allocation=Race(),
            budget=Limits(trials=TRIALS),
            clock=self._clock,
            seed=3,
            saved=saved,
        )

    def events(self, *names: str) -> list[dict[str, Any]]:
        return [event for event in Journal.read(self.path) if event["event"] in names]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep(tmp_path_factory.mktemp("whole"), {})


@pytest.mark.parametrize("seed", range(3))
def test_twenty_kills_change_nothing(tmp_path: Path, whole: Sweep, seed: int) -> None:
    draw = random.Random(seed)
    lines = draw.sample(range(len(Journal.read(whole.path))), KILLS)
    killed = Sweep(tmp_path, {line: draw.choice(("before", "torn", "after")) for line in lines})
    assert killed.kills == KILLS
    assert killed.lost == whole.lost > 0
    assert killed.search.trials() == whole.search.trials()
    for name in ("trial", "end"):
        counted = Counter(event["trial"] for event in killed.events(name))
        assert len(counted) == TRIALS
        assert set(counted.values()) == {1}
    rungs = Counter((event["trial"], event["step"]) for event in killed.events("rung"))
    assert set(rungs.values()) == {1}
    assert killed.events(*CHANGES) == whole.events(*CHANGES)


def test_an_interrupted_sweep_goes_on_from_its_last_rungs(tmp_path: Path, whole: Sweep) -> None:
    saved = Journal.read(whole.path)
    cut = saved[: len(saved) // 2]
    search = Search(
        Synthetic(METHODS[:4], RUNGS).plans("mail"), RUNGS, storage_path=None,
        journal=Journal(tmp_path / "journal.jsonl"), allocation=Race(), budget=Limits(trials=TRIALS), seed=3, saved=cut,
    )  # fmt: skip
    running = [record for record in search.trials() if record.state == "running"]
    assert len(running) > 3
    steps = {event["trial"]: event["step"] for event in cut if event["event"] == "rung"}
    again = [search.ask() for _ in running]
    assert all(again)
    assert {one.key: one.start for one in again if one} == {
        record.key: steps.get(str(record.key), 0) for record in running
    }
    assert any(one and one.start for one in again)
