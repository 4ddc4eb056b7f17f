"""A finished sweep goes on with more trials, without Ray: fake lanes answer at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator import cli
from orchestrator.cli.extend import parse_trials
from orchestrator.cli.output.resume import summary
from orchestrator.common.errors import InputError
from orchestrator.report.history import History
from orchestrator.report.page import page
from orchestrator.selection.selection import selections
from orchestrator.sweep.resume import with_extension
from orchestrator.sweep.runner import Outcome, resume_sweep
from orchestrator.sweep.saved_state import SavedSweep

from .test_attempts import (
    NEVER,
    TRIALS,
    KilledError,
    NoCluster,
    World,
    attempt,
    events_of,
    plan_in,
    world,
)  # fmt: skip

__all__ = ["world"]
MORE = 4


def extend(world: World, trials: int = MORE, events: int = NEVER) -> Outcome:
    """Extend a sweep, or resume one that was being extended, with a driver that dies after a number of events."""
    world.events_left = events
    saved = SavedSweep.of(world.folder)
    saved = saved.extended(trials) if saved.finished else saved
    plan = with_extension(plan_in(world.folder), saved)
    return resume_sweep(plan, saved, cluster=NoCluster(), watch=lambda _: None, stop=world.stop)


def kinds(events: list[dict[str, Any]]) -> Counter[str]:
    return Counter(event["event"] for event in events)


def test_extended_sweep_runs_its_trials_and_another_final(world: World) -> None:
    first = attempt(world)
    before = events_of(world.folder)
    jobs = len(world.lanes.jobs)
    outcome = extend(world)
    events = events_of(world.folder)
    assert events[: len(before)] == before, "nothing is rewritten"
    assert (kinds(events)["trial"], kinds(events)["end"]) == (TRIALS + MORE, TRIALS + MORE)
    assert (kinds(events)["extend"], kinds(events)["searched"], kinds(events)["selection"]) == (1, 2, 2)
    assert SavedSweep.of(world.folder).finished
    earlier, later = (outcome.tasks["mail"].selection for outcome in (first, outcome))
    assert (earlier.look, later.look) == (1, 2)
    assert {result.method for result in earlier.finalists} <= {result.method for result in later.finalists}
    unchanged = {result.trial for result in earlier.finalists} & {result.trial for result in later.finalists}
    again = {str(job.trial) for job in world.lanes.jobs[jobs:]}
    assert not unchanged & again, "what was retrained is not retrained again"
    tests = Counter((e["trial"], e["role"], e["seed"]) for e in events if e["event"] == "test")
    assert max(tests.values()) == 1


def test_extended_sweep_pays_for_the_second_look_with_wider_intervals(world: World) -> None:
    attempt(world)
    extend(world)
    first, second = [e for e in events_of(world.folder) if e["event"] == "selection"]
    by_trial = {result["trial"]: result for result in first["finalists"]}
    compared = [(by_trial[result["trial"]], result) for result in second["finalists"] if result["trial"] in by_trial]
    assert compared
    for before, after in compared:
        assert after["seed_scores"] == before["seed_scores"]
        # of t with a few degrees of freedom, the 98.75 % quantile over the 97.5 % one is above that of the normal
        assert after["interval"][0] == 0.0 or after["interval"][1] - after["interval"][0] > 1.14 * (
            before["interval"][1] - before["interval"][0]
        )


def test_extended_sweep_killed_at_any_event_is_resumed_whole(world: World, tmp_path: Path) -> None:
    attempt(world)
    start = len(events_of(world.folder))
    extend(world)
    for killed in range(1, len(events_of(world.folder)) - start, 4):
        world.folder = world.lanes.folder = tmp_path / f"killed-{killed}" / "tiny-1"
        world.folder.mkdir(parents=True)
        attempt(world)
        with pytest.raises(KilledError):
            extend(world, events=killed)
        if (saved := SavedSweep.of(world.folder)).extension is None:  # killed before the event
            assert attempt(world).reason == "finished"
            assert SavedSweep.of(world.folder).finished
            continue
        assert saved.can_resume
        extend(world)
        events = events_of(world.folder)
        assert kinds(events)["trial"] == TRIALS + MORE
        assert kinds(events)["extend"] == 1
        assert [kinds(events)[kind] for kind in ("searched", "selection", "registered")] == [2, 2, 2]


def test_extended_sweep_can_be_extended_again(world: World) -> None:
    attempt(world)
    extend(world)
    outcome = extend(world, trials=2)
    assert outcome.tasks["mail"].selection.look == 3
    assert kinds(events_of(world.folder))["trial"] == TRIALS + MORE + 2


def test_extended_sweep_tells_its_look_in_summary_and_report(world: World) -> None:
    attempt(world)
    saved = SavedSweep.of(world.folder).extended(MORE)
    told = summary(saved, plan_in(world.folder))
    assert told == "extended: 8 trials are done, 4 more follow; this is look 2 at the test split"
    extend(world)
    events = events_of(world.folder)
    text = page(History.of("tiny-1", events), {})
    assert "look 2 at the same test rows: intervals and ties are at the 97.5 % level" in text
    assert "all looks together err in at most 7.5 % of sweeps" in text
    assert selections(events)["mail"].look == 2


def test_finished_sweep_says_where_more_trials_would_go(world: World) -> None:
    outcome = attempt(world)
    searched = next(event for event in events_of(world.folder) if event["event"] == "searched")
    assert sum(searched["next"].values()) == 20
    assert set(searched["next"]) <= {"mail/lora", "mail/ia3"}
    assert outcome.next_trials == searched["next"]
    first = next(iter(searched["next"])).rpartition("/")[2]
    text = page(History.of("tiny-1", events_of(world.folder)), {})
    assert f"of 20 more, as the allocation stands: {first} {searched['next'][f'mail/{first}']}" in text


@pytest.mark.parametrize(("text", "number"), [("+20", 20), ("7", 7)])
def test_extend_reads_the_number_of_trials(text: str, number: int) -> None:
    assert parse_trials(text) == number


@pytest.mark.parametrize("text", ["0", "-3", "+0", "2.5", "many", ""])
def test_extend_refuses_what_is_no_number_of_trials(text: str) -> None:
    with pytest.raises(InputError, match="is not a number of further trials; write it as in"):
        parse_trials(text)


def test_extend_refuses_a_sweep_that_is_not_finished(world: World) -> None:
    with pytest.raises(KilledError):
        attempt(world, 12)
    refused = CliRunner().invoke(cli.app, ["extend", str(world.folder), "--trials", "+4"])
    assert isinstance(refused.exception, InputError)
    (line,) = refused.exception.lines()
    assert line.endswith("is not finished; continue it with peft-sweep resume tiny-1")
