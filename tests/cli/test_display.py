"""A running sweep as a person sees it: everything that counts, in 80 columns."""

import io
import math
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.output import progress as module
from orchestrator.cli.output.progress import SweepDisplay, fraction_spent
from orchestrator.common.units import duration, number, size
from orchestrator.config import Budget
from orchestrator.lanes.broker import LaneStatus
from orchestrator.planning.plan import SweepPlan
from orchestrator.sweep.runner import Snapshot

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


def picture(plan: SweepPlan, snapshot: Snapshot, name: str = "tiny-20260101-120000") -> list[str]:
    """The lines of the live picture, without colour."""
    display = SweepDisplay(name, plan, io.StringIO())
    shown = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None, highlight=False, markup=False)
    with shown.capture() as captured:
        shown.print(display._picture(snapshot))
    return captured.get().splitlines()


def rows(lines: list[str]) -> list[list[str]]:
    """The cells of the methods' table."""
    (head,) = (position for position, line in enumerate(lines) if line.split()[:2] == ["method", "best"])
    return [line.split() for line in lines[head + 1 :]]


def snapshot(**changes: Any) -> Snapshot:
    fields = {"phase": "searching", "elapsed": 95.0, "trials": TRIALS, "lanes": LANES, "expected_lanes": 2}
    return Snapshot(**{**fields, **changes})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (9.4, "0:09"), (59.6, "1:00"), (125, "2:05"), (3599.7, "1:00:00"), (3722, "1:02:02")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_940_000, "1.9 MB"),
        (240_000_000, "240 MB"),
        (3.2e9, "3.2 GB"),
        (5e12, "5.0 TB"),
    ],
)
def test_size(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (73_728, "73.7k"), (481_000, "481k"), (22.7e6, "22.7M"), (7e9, "7.0B")],
)
def test_number(count: float, text: str) -> None:
    assert number(count) == text


@pytest.mark.parametrize(("show", "text"), [(size, "1.0 MB"), (number, "1.0M")])
def test_rounding_moves_on_to_the_next_unit(show: Any, text: str) -> None:
    assert show(999_950) == text


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
def test_fraction_spent(budget: dict[str, Any], changes: dict[str, Any], share: float) -> None:
    assert fraction_spent(snapshot(**changes), Budget.model_validate(budget), 40) == pytest.approx(share)


def test_the_picture_tells_progress_lanes_and_methods() -> None:
    lines = picture(small_plan(METHODS), snapshot(expected_lanes=3))
    text = " ".join(" ".join(lines).split())
    for part in ("tiny-20260101-120000", "4/10 trials", "1:35 elapsed", "about 1:56 left", "searching"):
        assert part in text
    for part in ("lane 0 mail/lora/3 12/40 95% busy", "lane 1 waiting 0% busy", "1 of 3 lanes are starting"):
        assert part in text


def test_the_picture_counts_trials_by_state_best_method_first() -> None:
    lines = picture(small_plan(METHODS), snapshot())
    assert rows(lines) == [
        # method, best, trials, running, stopped, lane time
        ["lora", "0.8125", "3", "0", "2", "1:30"],
        ["ia3", "0.2500", "1", "1", "0", "0:05"],
        ["prefix", "-", "1", "0", "1", "0:00"],
    ]


def test_the_lowest_perplexity_stands_first() -> None:
    trials = (
        trial("talk/lora/0", values={40: 30.5}),
        trial("talk/lora/1", values={40: 31.0}),
        trial("talk/ia3/0", values={40: 12.25}),
    )
    plan = small_plan(METHODS, {"talk": CAUSAL})
    found = rows(picture(plan, snapshot(trials=trials)))
    assert [row[:2] for row in found] == [["ia3", "12.2500"], ["lora", "30.5000"], ["prefix", "-"]]


def test_methods_of_several_tasks_are_told_apart() -> None:
    trials = (trial("mail/lora/0", values={40: 0.5}), trial("talk/lora/0", values={40: 9.0}))
    found = rows(picture(small_plan(["lora"], {"mail": CLASSIFICATION, "talk": CAUSAL}), snapshot(trials=trials)))
    assert {tuple(row[:2]) for row in found} == {("mail/lora", "0.5000"), ("talk/lora", "9.0000")}


def test_nothing_is_wider_than_the_terminal() -> None:
    name = "a-task-with-quite-a-long-name-that-somebody-chose"
    plan = small_plan(METHODS, {name: CLASSIFICATION, "mail": CLASSIFICATION}, budget={"trials": 100_000})
    lanes = {lane: LaneStatus(working={f"{name}/prefix/{lane}": (1234, 5678)}, busy=1.0) for lane in range(3)}
    trials = (*TRIALS, trial(f"{name}/prefix/0", values={40: 0.9}, lane_seconds=99_999.0))
    long = snapshot(trials=trials, lanes=lanes, elapsed=99_999.0, expected_lanes=128)
    lines = picture(plan, long, name=f"{name}-20260101-120000")
    assert max(map(len, lines)) <= 80
    joined = "".join("".join(lines).split())
    for part in ("1234/5678", "0.9000", "27:46:39"):
        assert part in joined


def test_before_the_first_trial_there_is_no_guess_of_what_is_left() -> None:
    early = Snapshot(phase="tokenizing and quantizing", elapsed=3.0, expected_lanes=2)
    text = " ".join(picture(small_plan(METHODS), early))
    assert "2 of 2 lanes are starting" in text
    assert "left" not in text


def test_elsewhere_a_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with SweepDisplay("tiny-1", small_plan(METHODS), stream) as display:
        for moment in (100.0, 100.5, 109.9, 110.0, 119.0):
            now[0] = moment
            display.show(snapshot(elapsed=moment))
    first, second = stream.getvalue().splitlines()
    assert first == ("tiny-1 · searching · 4/10 trials · 1:40 elapsed · about 2:02 left · lora 0.8125, ia3 0.2500")
    assert "1:50 elapsed" in second


def test_a_terminal_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with SweepDisplay("tiny-1", small_plan(METHODS), stream) as display:
        display.show(snapshot())
        assert "lora" in stream.getvalue()
        assert "\x1b[?25l" in stream.getvalue()  # the cursor is hidden
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")
