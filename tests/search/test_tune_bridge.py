"""Late, repeated and missing reports of Tune, and what they do to the trials of the search."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.lanes.endings import RESTARTS, Cause
from orchestrator.lanes.tune_bridge import TuneBridge
from orchestrator.search.early_stopping import Halving
from orchestrator.search.plans import Decision


def result(step: int, value: float = 0.5, status: str = "done", train_seconds: float = 0.0) -> dict[str, Any]:
    """A result as a trial's process gives it to Tune."""
    fields = {"status": status, "reason": "out of luck" if status != "done" else "", "step": step, "value": value}
    return {
        **fields,
        "metrics": [("accuracy", value)],
        "measurements": [("train_seconds", train_seconds), ("attach_seconds", 0.25)],
    }


@pytest.fixture
def sweep(make_sweep: Any) -> Any:
    """Trials pause at the first rung until two have reported; one of two continues."""
    return make_sweep(trials=3, halving=Halving(min_results=2, through=0))


@pytest.fixture
def bridge(sweep: Any) -> TuneBridge:
    return TuneBridge(sweep.search)


def states(sweep: Any) -> list[str]:
    return [record.state for record in sweep.search.trials()]


def test_bridge_ignores_late_reports_of_a_finished_piece(sweep: Any, bridge: TuneBridge) -> None:
    bridge.begin("a"), bridge.begin("b")
    assert bridge.deliver("a", result(25, 0.9)) is Decision.PAUSE
    assert bridge.deliver("b", result(25, 0.1)) is Decision.PAUSE
    proposal = bridge.begin("c")
    assert proposal is not None
    assert (proposal.key.number, proposal.start) == (0, 25)
    for cause in (Cause.TUNE_ENDED, Cause.PROCESS_DIED):
        bridge.end("a", cause, "an error", RESTARTS)
    assert bridge.deliver("a", result(50, 0.9)) is Decision.STOP
    assert bridge.deliver("a", result(25, status="failed")) is Decision.STOP
    assert states(sweep)[0] == "running"
    assert list(sweep.search.trials()[0].values) == [25]
    bridge.deliver("c", result(25, status="failed"))
    assert states(sweep)[0] == "failed"
    assert (bridge.fault, sweep.search.closed) == ("", False)


def test_bridge_keeps_trial_of_a_paused_piece(sweep: Any, bridge: TuneBridge) -> None:
    bridge.begin("a")
    bridge.deliver("a", result(25))
    bridge.end("a", Cause.TUNE_ENDED, "")
    assert states(sweep) == ["paused"]
    assert (bridge.fault, sweep.search.closed) == ("", False)


@pytest.mark.parametrize("cause", [Cause.PROCESS_DIED, Cause.TUNE_ENDED])
def test_bridge_stops_the_sweep_with_open_trials_when_one_cannot_go_on(
    sweep: Any, bridge: TuneBridge, cause: Cause
) -> None:
    bridge.begin("a"), bridge.begin("b")
    bridge.end("b", cause, "an error", RESTARTS)
    assert (states(sweep), sweep.search.closed) == (["running"] * 2, True)
    assert bridge.fault == "trial mail/lora/1 could not go on, by no fault of its own: an error"
    assert bridge.begin("c") is None, "nothing more starts"


def test_bridge_keeps_a_piece_that_tune_starts_again(sweep: Any, bridge: TuneBridge) -> None:
    bridge.begin("a")
    bridge.end("a", Cause.PROCESS_DIED, "an error", RESTARTS - 1)
    assert (bridge.fault, sweep.search.closed) == ("", False)
    assert bridge.deliver("a", result(25)) is Decision.PAUSE
    assert states(sweep) == ["paused"]


def test_bridge_ends_trial_of_failed_result(sweep: Any, bridge: TuneBridge) -> None:
    bridge.begin("a")
    assert bridge.deliver("a", result(0, status="failed", train_seconds=2.0)) is Decision.STOP
    (end,) = sweep.events("end")
    assert (end["state"], end["reason"], end["lane_seconds"]) == ("failed", "out of luck", 2.25)


def test_bridge_leaves_trial_of_cancelled_result_open(sweep: Any, bridge: TuneBridge) -> None:
    bridge.begin("a")
    assert bridge.deliver("a", result(0, status="cancelled")) is Decision.STOP
    assert (states(sweep), sweep.events("end")) == (["running"], [])
    assert "out of luck" in bridge.fault


def test_bridge_leaves_trials_of_closed_search_open(sweep: Any, bridge: TuneBridge) -> None:
    bridge.begin("a"), bridge.begin("b"), bridge.begin("c")
    sweep.search.close("interrupted")
    bridge.deliver("a", result(0, status="cancelled"))
    bridge.end("b", Cause.PROCESS_DIED, "its process is gone", RESTARTS)
    bridge.end("c", Cause.TUNE_ENDED, "")
    assert states(sweep) == ["running"] * 3
    assert bridge.fault == ""


def test_bridge_reports_lane_time_since_last_result(sweep: Any, bridge: TuneBridge) -> None:
    bridge.begin("a")
    bridge.deliver("a", result(25, train_seconds=1.0))
    bridge.begin("b")
    bridge.deliver("b", result(25, 0.1, train_seconds=1.0))
    bridge.begin("c")
    bridge.deliver("c", result(50, train_seconds=3.0))
    assert [event["lane_seconds"] for event in sweep.events("rung")] == [1.25, 1.25, 2.0]


def test_bridge_counts_lane_time_of_earlier_attempt_once(sweep: Any, make_sweep: Any) -> None:
    first = TuneBridge(sweep.search)
    for number, name in enumerate("ab"):
        first.begin(name)
        first.deliver(name, result(25, 1.0 - number, train_seconds=1.0))
    again = make_sweep(trials=3, halving=Halving(min_results=2, through=0), saved=sweep.journal())
    bridge = TuneBridge(again.search)
    proposal = bridge.begin("c")
    assert proposal is not None
    assert proposal.start == 25
    bridge.deliver("c", result(50, train_seconds=3.0))
    assert again.search.trials()[0].lane_seconds == 3.25


def test_bridge_counts_lane_time_anew_after_lost_checkpoint(sweep: Any, bridge: TuneBridge) -> None:
    bridge.begin("a"), bridge.begin("b")
    bridge.deliver("a", result(25, 0.9, train_seconds=5.0))
    bridge.deliver("b", result(25, 0.1, train_seconds=5.0))
    bridge.begin("c")
    bridge.deliver("c", result(50, 0.9, train_seconds=3.0))
    assert sweep.events("rung")[-1]["lane_seconds"] == 3.25


def test_bridge_passes_curves_of_done_and_failed_trials_on(sweep: Any, bridge: TuneBridge) -> None:
    bridge.begin("a"), bridge.begin("b")
    curve = {"step": [10.0, 20.0], "loss": [1.5, 1.25]}
    bridge.deliver("a", {**result(25), "curve": curve})
    bridge.deliver("b", {**result(20, status="failed"), "curve": list(curve.items())})
    events = [event for event in sweep.journal() if event["event"] in ("rung", "end")]
    assert [(event["event"], event.get("curve")) for event in events] == [("rung", curve), ("end", curve)]


def test_tune_keeps_no_statistics_of_a_piece_that_has_ended(bridge: TuneBridge) -> None:
    from ray.tune.experiment import Trial

    from orchestrator.lanes.tune import CoreScheduler

    piece = Trial("TrialProxy", stub=True)
    before = len(piece.get_json_state()[1])
    for step in (1, 2):
        piece.update_last_result({**result(step), "done": False, "training_iteration": step, "time_total_s": 1.0})
    grown = len(piece.get_json_state()[1])
    CoreScheduler(bridge).on_trial_complete(None, piece, {})  # type: ignore[arg-type]
    left = len(piece.get_json_state()[1])
    assert left - before < 0.25 * (grown - before)
