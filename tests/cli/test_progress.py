"""The live display of a running sweep."""

import io
import math
import time
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.output.progress import SweepDisplay, fraction_spent
from orchestrator.config import Budget
from orchestrator.final.progress import FinalStatus, MethodProgress
from orchestrator.lanes.broker import LaneStatus
from orchestrator.planning.plan import SweepPlan
from orchestrator.sweep.status import Phase, Snapshot

from ..small_plan import CAUSAL, CLASSIFICATION, small_plan, trial

METHODS = ["ia3", "lora", "prefix"]
TRIALS = (
    trial("mail/lora/0", "complete", {20: 0.5, 40: 0.8125}, lane_seconds=70.0),
    trial("mail/lora/1", "pruned", {20: 0.4}, lane_seconds=20.0),
    trial("mail/lora/2", "failed", {}),
    trial("mail/ia3/0", "running", {20: 0.25}, lane_seconds=5.0),
    trial("mail/prefix/0", "failed", {20: math.nan}),
)
LANES = {
    0: LaneStatus(working={"mail/lora/3": (12, 40)}, busy=0.953),
    1: LaneStatus(),
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def displayed(plan: SweepPlan, snapshot: Snapshot, name: str = "tiny-20260101-120000") -> list[str]:
    """Return the lines of the live display, without colour."""
    display = SweepDisplay(name, plan, io.StringIO())
    shown = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, highlight=False, markup=False)
    with shown.capture() as captured:
        shown.print(display._table_view(snapshot))
    return captured.get().splitlines()


def rows(lines: list[str]) -> list[list[str]]:
    """Return the cells of the table of methods."""
    (head,) = (position for position, line in enumerate(lines) if line.split()[:2] == ["method", "best"])
    return [line.split() for line in lines[head + 1 :]]


def snapshot(**changes: Any) -> Snapshot:
    fields = {"phase": Phase.SEARCHING, "elapsed": 95.0, "trials": TRIALS, "lanes": LANES, "expected_lanes": 2}
    return Snapshot(**{**fields, **changes})


@pytest.mark.parametrize(
    ("budget", "changes", "share"),
    [
        ({"trials": 10}, {"trials": ()}, 0.0),
        ({"trials": 10}, {}, 0.45),  # four ended, one is half-way
        ({"trials": 4}, {}, 1.0),  # never above
        ({"wall_time": "200s"}, {}, 0.475),
        ({"lane_hours": 1}, {"lane_seconds": 900.0}, 0.25),
        ({"trials": 10, "wall_time": "100s", "lane_hours": 1}, {"lane_seconds": 900.0}, 0.95),  # the tightest
    ],
)
def test_fraction_spent_follows_the_tightest_limit(
    budget: dict[str, Any], changes: dict[str, Any], share: float
) -> None:
    assert fraction_spent(snapshot(**changes), Budget.model_validate(budget), 40) == pytest.approx(share)


def test_display_shows_progress_and_lanes() -> None:
    lines = displayed(small_plan(METHODS), snapshot(expected_lanes=3))
    text = " ".join(" ".join(lines).split())
    for part in ("tiny-20260101-120000", "4/10 trials", "1:35 elapsed", "about 1:56 left", "searching"):
        assert part in text
    for part in ("lane 0 lora/3 12/40 95% busy", "lane 1 idle 0% busy", "1 of 3 lanes are starting"):
        assert part in text


def test_display_tells_preemptions_in_one_line() -> None:
    lines = displayed(small_plan(METHODS), snapshot(drained_nodes=1, moved_jobs=3))
    assert [line.strip() for line in lines if "taken back" in line] == ["1 node taken back, 3 trainings moved"]
    assert not [line for line in displayed(small_plan(METHODS), snapshot()) if "taken back" in line]


def test_display_counts_trials_by_state_best_method_first() -> None:
    lines = displayed(small_plan(METHODS), snapshot())
    assert rows(lines) == [
        # method, best, trials, running, stopped, lane time
        ["lora", "0.8125", "3", "0", "2", "1:30"],
        ["ia3", "0.2500", "1", "1", "0", "0:05"],
        ["prefix", "-", "1", "0", "1", "0:00"],
    ]


def test_display_sorts_perplexity_ascending() -> None:
    trials = (
        trial("talk/lora/0", values={40: 30.5}),
        trial("talk/lora/1", values={40: 31.0}),
        trial("talk/ia3/0", values={40: 12.25}),
    )
    plan = small_plan(METHODS, {"talk": CAUSAL})
    cells = rows(displayed(plan, snapshot(trials=trials)))
    assert [row[:2] for row in cells] == [["ia3", "12.2500"], ["lora", "30.5000"], ["prefix", "-"]]


def test_display_names_tasks_if_there_are_several() -> None:
    trials = (trial("mail/lora/0", values={40: 0.5}), trial("talk/lora/0", values={40: 9.0}))
    cells = rows(displayed(small_plan(["lora"], {"mail": CLASSIFICATION, "talk": CAUSAL}), snapshot(trials=trials)))
    assert {tuple(row[:2]) for row in cells} == {("mail/lora", "0.5000"), ("talk/lora", "9.0000")}


def test_display_fits_eighty_columns() -> None:
    name = "a-task-with-quite-a-long-name-that-somebody-chose"
    plan = small_plan(METHODS, {name: CLASSIFICATION, "mail": CLASSIFICATION}, budget={"trials": 100_000})
    lanes = {lane: LaneStatus(working={f"{name}/prefix/{lane}": (1234, 5678)}, busy=1.0) for lane in range(3)}
    trials = (*TRIALS, trial(f"{name}/prefix/0", values={40: 0.9}, lane_seconds=99_999.0))
    long = snapshot(trials=trials, lanes=lanes, elapsed=99_999.0, expected_lanes=128)
    lines = displayed(plan, long, name=f"{name}-20260101-120000")
    assert max(map(len, lines)) <= 80
    joined = "".join("".join(lines).split())
    for part in ("1234/5678", "0.9000", "27:46:39"):
        assert part in joined


def test_display_estimates_no_remaining_time_before_trials() -> None:
    early = Snapshot(phase=Phase.PREPARING, elapsed=3.0, expected_lanes=2)
    text = " ".join(displayed(small_plan(METHODS), early))
    assert "2 of 2 lanes are starting" in text
    assert "left" not in text


def test_display_writes_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with SweepDisplay("tiny-1", small_plan(METHODS), stream) as display:
        for moment in (100.0, 100.5, 109.9, 110.0, 119.0):
            now[0] = moment
            display.show(snapshot(elapsed=moment))
    first, second = stream.getvalue().splitlines()
    assert first == ("tiny-1 · searching · 4/10 trials · 1:40 elapsed · about 2:02 left · lora 0.8125, ia3 0.2500")
    assert "1:50 elapsed" in second


def test_display_restores_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with SweepDisplay("tiny-1", small_plan(METHODS), stream) as display:
        display.show(snapshot())
        assert "lora" in stream.getvalue()
        assert "\x1b[?25l" in stream.getvalue()  # the cursor is hidden
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


FINAL = FinalStatus(
    {"mail/lora": MethodProgress(2, 3, 0, 1), "mail/prefix": MethodProgress(0, 0, 1, 1)}, seconds_left=80.0
)


def test_display_counts_the_jobs_of_the_final_by_method() -> None:
    lines = displayed(small_plan(METHODS), snapshot(phase=Phase.FINAL, final=FINAL))
    (head,) = (number for number, line in enumerate(lines) if line.split()[:1] == ["method"])
    assert [line.split() for line in lines[head + 1 :]] == [
        ["lora", "2", "of", "3", "0", "of", "1"],
        ["prefix", "-", "1", "of", "1"],
    ]
    assert "about 1:20 left" in " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 80


def test_display_line_counts_the_jobs_of_the_final() -> None:
    stream = io.StringIO()
    with SweepDisplay("tiny-1", small_plan(METHODS), stream) as display:
        display.show(snapshot(phase=Phase.FINAL, final=FINAL))
    assert (
        stream.getvalue()
        .strip()
        .endswith("1:35 elapsed · about 1:20 left · lora 2 of 3 retrained, 0 of 1 scored; prefix 1 of 1 scored")
    )
