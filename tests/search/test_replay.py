"""A journal's events bring a search back to where it was."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution

from orchestrator.search.allocation import ALLOCATIONS
from orchestrator.search.plans import Decision
from orchestrator.tracking.journal import Journal
from search_spaces._base import SearchSpace

from .conftest import CONTINUOUS, RUNGS, curve

STUDIES = ("mail/lora", "mail/ia3", "mail/prompt")
STATE = frozenset({"trial", "rung", "pause", "promote", "end", "drop", "readmit"})
THREE_POINTS = SearchSpace(distributions={"rank": CategoricalDistribution([4, 8, 16])}, default={"rank": 8}, sources={})


def play(sweep: Any, *, until: int | None = None) -> list[tuple[str, int]]:
    """Three lanes whose pieces end in an order that hangs on nothing but the pieces; some fail, some diverge."""
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
        winners_bias = random.Random(name).random()
        if winners_bias < 0.1:
            sweep.search.finish(proposal.key, "failed", "bad luck", lane_seconds=1.0)
            continue
        value = math.nan if winners_bias < 0.2 else curve(proposal.params, step)
        decision = sweep.search.report(proposal.key, step, value, lane_seconds=2.0)
        if decision is Decision.CONTINUE:
            ahead = next(other for other in RUNGS if other > step)
            lanes.append((clock + (ahead - step), name, proposal, ahead))
    return visited


def rank(sweep: Any) -> Any:
    """Everything that decides what a search does next."""
    state = sweep.search._state
    return (
        repr(sweep.search.trials()),
        {name: (one.starts, one.cost, one.hopeless, one.bests) for name, one in state.progress.items()},
        {name: one.promotable(can_start=False) for name, one in state.progress.items()},
        sweep.search.lane_seconds,
        sorted(map(str, state.running)),
    )


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_a_search_that_is_brought_back_stands_where_it_stood(make_sweep: Any, name: str) -> None:
    allocation = ALLOCATIONS[name]()
    for lines in (1, 2, 7, 30, 81, 140):
        before = make_sweep(STUDIES, folder=f"{name}-{lines}", allocation=allocation, trials=40)
        play(before, until=lines)
        saved = Journal.read(before.folder / "journal.jsonl")
        after = make_sweep(STUDIES, folder=f"{name}-{lines}", allocation=allocation, trials=40, saved=saved)
        assert rank(after) == rank(before)
        given = [after.search.ask() for _ in before.search._state.running]
        assert [str(one.key) for one in given] == list(map(str, before.search._state.running))
        steps = {record.key: record.step for record in before.search.trials()}
        assert all(one.start == steps[one.key] for one in given)


def late(sweep: Any) -> None:
    """What runs comes to its next rung, while nobody asks any more."""
    for record in [record for record in sweep.search.trials() if record.state == "running"]:
        step = next(step for step in RUNGS if step > record.step)
        value = math.nan if record.key.number % 5 == 4 else curve(dict(record.params), step)
        sweep.search.report(record.key, step, value, lane_seconds=2.0)


@pytest.mark.parametrize("lines", [7, 30, 81, 120, 133])
@pytest.mark.parametrize("written", [True, False], ids=["judged", "not judged any more"])
def test_results_that_come_after_the_interruption_are_judged_as_if_there_had_been_none(
    make_sweep: Any, lines: int, written: bool
) -> None:
    whole, cut = (make_sweep(STUDIES, folder=f"{name}-{lines}", trials=40) for name in ("whole", "cut"))
    for sweep in (whole, cut):
        play(sweep, until=lines)
    cut.search.close("interrupted")
    began = len(cut.journal())
    for sweep in (whole, cut):
        late(sweep)
    late_events = cut.journal()[began:]
    owed = [event for event in late_events if event["event"] in ("pause", "end")]
    saved = cut.journal() if written else [event for event in cut.journal() if event not in owed]
    for life in range(2):  # the second finds what the first has made up for
        after = make_sweep(STUDIES, folder=f"{lines}-{life}", trials=40, saved=saved)
        assert rank(after) == rank(whole)
        made_up = after.journal()
        assert [{**one, "time": 0} for one in made_up] == [{**one, "time": 0} for one in owed if not (written or life)]
        saved = saved + made_up


@pytest.mark.parametrize(
    ("space", "going_on"),
    [
        pytest.param(CONTINUOUS, {0, 3, 4, 5, 6}, id="the best so far"),
        pytest.param(THREE_POINTS, {0, 2}, id="no more to compare with"),
    ],
)
def test_who_went_on_is_not_judged_again_by_what_came_later(
    make_sweep: Any, space: SearchSpace, going_on: set[int]
) -> None:
    before = make_sweep(space=space, trials=7)
    keys = [proposal.key for _ in range(7) if (proposal := before.search.ask())]
    decisions = {key.number: before.search.report(key, 25, 0.1 * key.number) for key in keys}
    assert {number for number, decision in decisions.items() if decision is Decision.CONTINUE} == going_on
    after = make_sweep(folder="after", space=space, trials=7, saved=before.journal())
    assert rank(after) == rank(before)
    assert after.journal() == []


def test_one_lane_visits_the_same_configurations_though_it_is_killed_at_any_line(make_sweep: Any) -> None:
    whole = make_sweep(STUDIES, folder="whole", trials=12, allocation=ALLOCATIONS["race"]())
    drive(whole)
    lines = (whole.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines), 5):
        folder = whole.folder.parent / f"cut-{cut}"
        folder.mkdir()
        torn = lines[cut][: len(lines[cut]) // 2]
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:cut]) + torn)
        saved = [json.loads(line) for line in lines[:cut]]
        again = make_sweep(STUDIES, folder=f"cut-{cut}", trials=12, allocation=ALLOCATIONS["race"](), saved=saved)
        drive(again)
        assert state_events(folder) == state_events(whole.folder)


def drive(sweep: Any) -> None:
    """One lane, to the end."""
    while proposal := sweep.search.ask():
        for step in (step for step in RUNGS if step > proposal.start):
            if sweep.search.report(proposal.key, step, curve(proposal.params, step)) is not Decision.CONTINUE:
                break
    sweep.search.close("finished")


def state_events(folder: Path) -> list[dict[str, Any]]:
    return [event for event in Journal.read(folder / "journal.jsonl") if event["event"] in STATE]
