"""What a person reads when a sweep has ended, and what a program gets."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.output import run as view
from orchestrator.cli.output import select as select_view
from orchestrator.config import SweepConfig
from orchestrator.final.results import Finalist, TaskOutcome
from orchestrator.selection.selection import Selection
from orchestrator.sweep.runner import Outcome
from orchestrator.tracking.registry import Registered

from ..selection.small_evidence import entry, measurements, selection
from ..small_plan import small_plan, trial

LORA = entry("lora", 0.807, tied=True, measurements=measurements(size=2.4e6))
ADAPTER = entry("adapter", 0.799, tied=True, measurements=measurements(size=0.3e6))
IA3 = entry("ia3", 0.71, gap=0.05, measurements=measurements(size=1e5), note="1 retrainings failed: out of memory")
PROBE = entry("linear_probe", 0.41, measurements=measurements(size=1e4), reason="far behind")
SELECTION = selection(
    LORA, ADAPTER, IA3, others=(PROBE,), minimum_detectable_difference=0.026, failed={"prefix": "it diverged"},
    reason="lora has the best score.", alternative="prefer: size would choose adapter.",
)  # fmt: skip


def finalist(method: str, role: Any, score: float) -> Finalist:
    record = trial(f"mail/{method}/1", values={40: score})
    metrics = {"macro_f1": score, "accuracy": 0.89}
    return Finalist(
        record, role, score, (score - 0.02, score + 0.02), metrics, measurements(), "checkpoints/x", tied=True
    )


def outcome(folder: Path, *selections: Selection, **changes: Any) -> Outcome:
    tasks = {}
    for one in selections:
        task = small_plan(["lora", "adapter"]).tasks["mail"]
        found = [
            finalist("lora", "champion", 0.807),
            finalist("adapter", "best", 0.799),
            finalist("lora", "default", 0.7),
        ]
        tasks[one.task] = TaskOutcome(task, found, (), one, unregistered="the server is away")
    fields: dict[str, Any] = {"sweep": "tiny-1", "reason": "finished", "tasks": tasks, "trials": ()}
    return Outcome(**{**fields, "folder": folder / "tiny-1", "wall_seconds": 125.0, **changes})


def text(monkeypatch: pytest.MonkeyPatch, found: Outcome, **config: Any) -> str:
    shown = Console(width=80, highlight=False, markup=False, soft_wrap=True, color_system=None)
    for module in (view, select_view):
        monkeypatch.setattr(module, "console", shown)
    values: dict[str, Any] = {"backbone": {"model": "x"}, "budget": {"trials": 1}, "methods": ["lora"]}
    task = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label"}
    made = SweepConfig.model_validate({**values, "tasks": {"mail": task}, **config})
    with shown.capture() as captured:
        view.print_outcome(found, made)
    return captured.get()


def test_the_end_says_who_is_tied_who_is_behind_and_what_could_have_been_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = text(monkeypatch, outcome(tmp_path, SELECTION))
    for words in (
        "mail: lora is recommended with macro-F1 0.807 [0.787, 0.827] on 2,000 test rows (3 seeds).",
        "tied with it: adapter 0.799 [0.779, 0.819]",
        "why: lora has the best score.",
        "what would change it: prefer: size would choose adapter.",
        "clearly behind: ia3 0.710 (by 0.050 at least)",
        "out on validation already: linear_probe 0.410",
        "could have shown differences of 0.026",
        "lora untuned: 0.700 [0.680, 0.720]",
        "ia3: 1 retrainings failed: out of memory",
        "prefix: it diverged",
        "NOT registered: the server is away",
        "select tiny-1 --max-size 1MB",
        "report tiny-1",
    ):
        assert words in found


def test_a_winner_that_is_alone_wins_and_what_was_registered_can_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = selection(replace(LORA, tied=True), IA3)
    found = outcome(tmp_path, alone)
    fields = dict.fromkeys(Registered.__dataclass_fields__, "")
    found.tasks["mail"].registered = Registered(**{**fields, "name": "mail", "version": 3, "alias": "champion"})  # type: ignore[arg-type]
    said = text(monkeypatch, found)
    assert "mail: lora wins with macro-F1" in said
    assert "tied with it" not in said
    assert "registered: mail version 3" in said
    assert "predict mail@champion < rows.jsonl" in said


def test_several_tasks_are_put_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = selection(ADAPTER, replace(LORA, tied=False, gap=0.01), task="post")
    said = text(monkeypatch, outcome(tmp_path, SELECTION, other))
    assert "0.807 *" in said
    assert "one method for all tasks: " in said


def test_a_program_gets_the_selection_too(tmp_path: Path) -> None:
    found = view.outcome_json(outcome(tmp_path, SELECTION))
    mail = found["tasks"]["mail"]
    assert Selection.from_dict(mail["selection"]) == SELECTION
    assert Counter(one["role"] for one in mail["finalists"]) == {"champion": 1, "best": 1, "default": 1}
    assert found["overall"] is None
