"""A journal's events restore the search that wrote them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution

from orchestrator.journal.events import Journal
from orchestrator.search.allocation import ALLOCATIONS
from orchestrator.search.plans import Decision
from search_spaces._base import SearchSpace

from .conftest import CONTINUOUS, RUNGS, curve

STUDIES = ("mail/lora", "mail/ia3", "mail/prompt")
STATE = frozenset({"trial", "rung", "pause", "promote", "end", "drop", "readmit"})
THREE_POINTS = SearchSpace(distributions={"rank": CategoricalDistribution([4, 8, 16])}, default={"rank": 8}, sources={})


def play(sweep: Any, *, until: int | None = None) -> list[tuple[str, int]]:
    """Run three lanes whose pieces end in an order that depends on the pieces alone; some fail, some diverge."""
    lanes: list[tuple[float, str, Any, int]] = []
    visited = []
    clock = 0.0
    while until is None or len(sweep.journal()) < until:
        while len(lanes) < 3 and (proposal := sweep.search.ask()):
            visited.append((str(proposal.key), proposal.start))
            ahead = next(step for step in RUNGS if step > proposal.start)
            lanes.append((clock + (ahead - proposal.start), str(proposal.key), proposal, ahead))
        if not lanes:
            break
        lanes.sort()
        clock, name, proposal, step = lanes.pop(0)
        luck = random.Random(name).random()
        if luck < 0.1:
            sweep.search.finish(proposal.key, "failed", "bad luck", lane_seconds=1.0)
            continue
        value = math.nan if luck < 0.2 else curve(proposal.params, step)
        decision = sweep.search.report(proposal.key, step, value, lane_seconds=2.0)
        if decision is Decision.CONTINUE:
            ahead = next(other for other in RUNGS if other > step)
            lanes.append((clock + (ahead - step), name, proposal, ahead))
    return visited


def snapshot(sweep: Any) -> Any:
    """Return everything that decides what a search does next."""
    state = sweep.search._state
    return (
        repr(sweep.search.trials()),
        {name: (study.starts, study.cost, study.hopeless, study.bests) for name, study in state.progress.items()},
        {name: study.promotable(can_start=False) for name, study in state.progress.items()},
        sweep.search.lane_seconds,
        sorted(map(str, state.running)),
    )


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_resume_restores_the_state_of_the_search(make_sweep: Any, name: str) -> None:
    allocation = ALLOCATIONS[name]()
    for lines in (1, 2, 7, 30, 81, 140):
        before = make_sweep(STUDIES, folder=f"{name}-{lines}", allocation=allocation, trials=40)
        play(before, until=lines)
        saved = Journal.read(before.folder / "journal.jsonl")
        after = make_sweep(STUDIES, folder=f"{name}-{lines}", allocation=allocation, trials=40, saved=saved)
        assert snapshot(after) == snapshot(before)
        proposals = [after.search.ask() for _ in before.search._state.running]
        assert [str(proposal.key) for proposal in proposals] == list(map(str, before.search._state.running))
        steps = {record.key: record.step for record in before.search.trials()}
        assert all(proposal.start == steps[proposal.key] for proposal in proposals)


def report_running(sweep: Any) -> None:
    """Let every running trial report at its next rung, without asking for more work."""
    for record in [record for record in sweep.search.trials() if record.state == "running"]:
        step = next(step for step in RUNGS if step > record.step)
        value = math.nan if record.key.number % 5 == 4 else curve(dict(record.params), step)
        sweep.search.report(record.key, step, value, lane_seconds=2.0)


@pytest.mark.parametrize("lines", [7, 30, 81, 120, 133])
@pytest.mark.parametrize("written", [True, False], ids=["decisions written", "decisions lost"])
def test_resume_decides_late_results_as_without_interruption(make_sweep: Any, lines: int, written: bool) -> None:
    uninterrupted, cut = (make_sweep(STUDIES, folder=f"{name}-{lines}", trials=40) for name in ("whole", "cut"))
    for sweep in (uninterrupted, cut):
        play(sweep, until=lines)
    cut.search.close("interrupted")
    length = len(cut.journal())
    for sweep in (uninterrupted, cut):
        report_running(sweep)
    late_events = cut.journal()[length:]
    decisions = [event for event in late_events if event["event"] in ("pause", "end")]
    saved = cut.journal() if written else [event for event in cut.journal() if event not in decisions]
    for attempt in range(2):  # the second finds the events that the first has added
        after = make_sweep(STUDIES, folder=f"{lines}-{attempt}", trials=40, saved=saved)
        assert snapshot(after) == snapshot(uninterrupted)
        added = after.journal()
        expected = [] if written or attempt else decisions
        assert [{**event, "time": 0} for event in added] == [{**event, "time": 0} for event in expected]
        saved = saved + added


@pytest.mark.parametrize(
    ("space", "continuing"),
    [
        pytest.param(CONTINUOUS, {0, 3, 4, 5, 6}, id="the best so far"),
        pytest.param(THREE_POINTS, {0, 2}, id="no more to compare with"),
    ],
)
def test_resume_does_not_repeat_decisions_with_later_results(
    make_sweep: Any, space: SearchSpace, continuing: set[int]
) -> None:
    before = make_sweep(space=space, trials=7)
    keys = [proposal.key for _ in range(7) if (proposal := before.search.ask())]
    decisions = {key.number: before.search.report(key, 25, 0.1 * key.number) for key in keys}
    assert {number for number, decision in decisions.items() if decision is Decision.CONTINUE} == continuing
    after = make_sweep(folder="after", space=space, trials=7, saved=before.journal())
    assert snapshot(after) == snapshot(before)
    assert after.journal() == []


def test_resume_after_a_kill_at_any_line_repeats_the_search(make_sweep: Any) -> None:
    uninterrupted = make_sweep(STUDIES, folder="whole", trials=12, allocation=ALLOCATIONS["race"]())
    drive(uninterrupted)
    lines = (uninterrupted.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines), 5):
        folder = uninterrupted.folder.parent / f"cut-{cut}"
        folder.mkdir()
        torn = lines[cut][: len(lines[cut]) // 2]
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:cut]) + torn)
        saved = [json.loads(line) for line in lines[:cut]]
        again = make_sweep(STUDIES, folder=f"cut-{cut}", trials=12, allocation=ALLOCATIONS["race"](), saved=saved)
        drive(again)
        assert state_events(folder) == state_events(uninterrupted.folder)


def drive(sweep: Any) -> None:
    """Run a search on one lane to its end."""
    while proposal := sweep.search.ask():
        for step in (step for step in RUNGS if step > proposal.start):
            if sweep.search.report(proposal.key, step, curve(proposal.params, step)) is not Decision.CONTINUE:
                break
    sweep.search.close("finished")


def state_events(folder: Path) -> list[dict[str, Any]]:
    return [event for event in Journal.read(folder / "journal.jsonl") if event["event"] in STATE]
