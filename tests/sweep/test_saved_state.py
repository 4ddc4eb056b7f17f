"""The state of a sweep as its journal records it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from orchestrator.common.trial_types import Answer
from orchestrator.journal.events import Journal, ending
from orchestrator.sweep.saved_state import SavedSweep

BEGIN = {"event": "sweep", "began": 90.0, "time": 100.0, "tasks": {"mail": {}, "post": {}}}


def saved(*events: dict[str, Any]) -> SavedSweep:
    return SavedSweep("tiny-1", Path("tiny-1"), events)


def event(kind: str, time: float = 110.0, **fields: Any) -> dict[str, Any]:
    return {"event": kind, "time": time, **fields}


def test_saved_sweep_without_events_has_no_attempts() -> None:
    sweep = saved()
    assert (sweep.attempts, sweep.wall_seconds, sweep.description, sweep.finished) == (0, 0.0, {}, False)


def test_saved_sweep_counts_no_time_between_attempts() -> None:
    first = [BEGIN, event("trial", 150.0)]
    assert saved(*first).wall_seconds == 60.0, "from the driver's start to its last event"
    second = [event("resume", 1010.0, began=1000.0), event("end", 1040.0)]
    assert saved(*first, *second).wall_seconds == 100.0
    stopped = [event("close", 160.0, reason="interrupted")]
    third = [event("resume", 5000.0, began=4999.0), event("close", 5001.0, reason="interrupted")]
    assert saved(*first, *stopped, *second, *third).wall_seconds == 70.0 + 40.0 + 2.0
    assert saved(*first, *stopped, *second, *third).attempts == 3


def test_saved_sweep_counts_trials_done_and_left() -> None:
    trials = [event("trial"), event("trial"), event("trial"), event("rung", value=None), event("end")]
    assert (saved(BEGIN, *trials).trials_done, saved(BEGIN, *trials).trials_left) == (1, 2)
    assert not saved(BEGIN, *trials).has_result
    assert saved(BEGIN, *trials, event("rung", value=0.0)).has_result


def test_saved_sweep_returns_only_answers_that_are_done(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    done = Answer(
        status="done", step=4, metrics={"perplexity": math.inf, "loss": 0.5}, checkpoint="x", measurements={"a": 1.0}
    )
    journal.append("answer", job="done", trial="t", answer=done.to_dict())
    journal.append("answer", job="failed", trial="t", answer=Answer(status="failed", reason="why").to_dict())
    answers = saved(*Journal.read(journal.path)).answers
    assert list(answers) == ["done"]
    answer = answers["done"]
    assert math.isnan(answer.metrics.pop("perplexity")), "JSON has no infinity"
    assert (answer.metrics, answer.measurements, answer.checkpoint, answer.step) == ({"loss": 0.5}, {"a": 1.0}, "x", 4)


REGISTERED = [event("registered", task=task) for task in ("mail", "post")]


@pytest.mark.parametrize(
    ("events", "finished"),
    [
        ([*REGISTERED, event("close", reason="finished")], True),
        ([*REGISTERED, event("close", reason="budget")], True),
        ([*REGISTERED, event("close", reason="interrupted")], False),
        ([*REGISTERED, event("close", reason="failed")], False),
        (REGISTERED, False),
        ([REGISTERED[0], event("close", reason="finished")], False),
        ([*REGISTERED, event("close", reason="finished"), event("resume")], False),
    ],
)
def test_saved_sweep_is_finished_when_closed_and_all_registered(events: list[dict[str, Any]], finished: bool) -> None:
    assert saved(BEGIN, *events).finished == finished


def test_ending_is_the_last_close_without_later_events() -> None:
    stopped, done = event("close", reason="interrupted"), event("close", reason="finished")
    assert ending([]) is None
    assert ending([BEGIN, stopped]) is stopped
    assert ending([BEGIN, stopped, event("resume")]) is None
    assert ending([BEGIN, stopped, event("resume"), event("rung"), done]) is done


def test_saved_sweep_knows_why_its_search_ended() -> None:
    assert saved(BEGIN).search_ended is None
    assert saved(BEGIN, event("searched", reason="budget")).search_ended == "budget"


FIRST = [
    BEGIN,
    event("trial", trial="mail/lora/0"),
    event("rung", trial="mail/lora/0", value=0.5),
    event("end", trial="mail/lora/0"),
    event("searched", reason="budget", next={"mail/lora": 20}),
    event("test", trial="mail/lora/0", role="champion", seed=None),
    event("selection", task="mail", tied=["lora"], finalists=[{"method": "lora"}]),
    event("registered", task="mail", methods={"lora": {}}),
    event("registered", task="post", methods={}),
    event("close", reason="budget"),
]
"""A sweep that has ended."""


def test_extended_sweep_begins_search_final_and_registration_anew() -> None:
    sweep = saved(*FIRST).extended(20)
    assert saved(*FIRST).finished
    assert (sweep.finished, sweep.search_ended, sweep.registered, sweep.look) == (False, None, {}, 2)
    assert (sweep.extension or {})["limit"] == 21, "one trial was started"
    assert [e["event"] for e in sweep.recorded_final] == ["test"], "the selection is written again, the scores are not"
    assert sweep.earlier_finalists == {"mail": {"lora"}}


def test_extended_sweep_that_was_killed_is_resumed_where_it_was() -> None:
    written = [*FIRST, event("resume"), event("extend", trials=20, limit=21)]
    killed = saved(*written, event("trial", trial="mail/lora/1"))
    assert (killed.can_resume, killed.search_ended, killed.trials_left, killed.is_extended_now) == (
        True,
        None,
        1,
        False,
    )
    searched = saved(*written, event("searched", reason="budget"))
    assert (searched.can_resume, searched.search_ended, searched.look) == (True, "budget", 2)
    again = [event("selection", task="mail", tied=["ia3"], finalists=[]), *FIRST[-3:]]
    assert not saved(*written, *again).unregistered_ties("post")
    assert saved(*written, *again).unregistered_ties("mail") == {"ia3"}
    assert not saved(*written, *again).finished
    again[1] = event("registered", task="mail", methods={"ia3": {}})
    assert saved(*written, *again).finished


def test_extended_sweep_killed_before_the_event_is_still_finished_after_a_resume() -> None:
    killed = saved(*FIRST, event("resume"))
    assert (killed.can_resume, killed.search_ended, killed.look) == (True, "budget", 1)
    assert saved(*FIRST, event("resume"), event("close", reason="budget")).finished


def test_extended_sweep_counts_its_limit_from_the_trials_so_far() -> None:
    twice = saved(*FIRST, event("extend", trials=2, limit=3), event("trial"), event("trial"), *FIRST[-3:]).extended(5)
    assert (twice.extension or {})["limit"] == 8
    assert twice.look == 3


def test_sweep_without_configurations_left_is_exhausted() -> None:
    assert not saved(*FIRST).is_exhausted
    assert not saved(BEGIN, event("searched", reason="budget")).is_exhausted, "earlier releases do not say"
    assert saved(*FIRST, event("searched", reason="finished", next={})).is_exhausted
