"""The end of a sweep on the terminal and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.output import console as console_module
from orchestrator.cli.output import run as view
from orchestrator.cli.output import select as select_view
from orchestrator.config import SweepConfig
from orchestrator.final.results import TaskOutcome
from orchestrator.selection.baseline import Baseline
from orchestrator.selection.results import MethodResult, SeedResult
from orchestrator.selection.selection import Selection
from orchestrator.sweep.runner import Outcome
from orchestrator.tracking.registry import Registered

from ..selection.small_evidence import measurements, result, selection
from ..small_plan import small_plan, trial

LORA = result("lora", 0.807, tied=True, measurements=measurements(size=2.4e6))
ADAPTER = result("adapter", 0.799, tied=True, measurements=measurements(size=0.3e6))
IA3 = result(
    "ia3", 0.71, gap=0.05, measurements=measurements(size=1e5), note="1 of 3 retrainings failed: out of memory"
)
PROBE = result("linear_probe", 0.41, measurements=measurements(size=1e4), reason="far behind")
SELECTION = selection(
    LORA, ADAPTER, IA3, others=(PROBE,), minimum_detectable_difference=0.026, failed={"prefix": "it diverged"},
    reason="lora has the best score of the 2 tied methods", alternative="prefer: size selects adapter",
)  # fmt: skip


def outcome(folder: Path, *selections: Selection, **changes: Any) -> Outcome:
    tasks = {}
    for one in selections:
        task = small_plan(["lora", "adapter"]).tasks["mail"]
        records = tuple(trial(scored.trial, values={40: scored.validation}) for scored in one.scored)
        untuned = result("lora", 0.7, trial="mail/lora/0", seed_scores=(0.7,))
        tasks[one.task] = TaskOutcome(task, one, records, untuned, unregistered="the server is away")
    fields: dict[str, Any] = {"sweep": "tiny-1", "reason": "finished", "tasks": tasks, "trials": ()}
    return Outcome(**{**fields, "folder": folder / "tiny-1", "wall_seconds": 125.0, **changes})


def text(monkeypatch: pytest.MonkeyPatch, finished: Outcome, **config: Any) -> str:
    shown = Console(width=80, highlight=False, markup=False, soft_wrap=True, color_system=None)
    for module in (view, select_view, console_module):
        monkeypatch.setattr(module, "console", shown)
    values: dict[str, Any] = {"backbone": {"model": "x"}, "budget": {"trials": 1}, "methods": ["lora"]}
    task = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label"}
    parsed = SweepConfig.model_validate({**values, "tasks": {"mail": task}, **config})
    with shown.capture() as captured:
        view.print_outcome(finished, parsed)
    return captured.get()


def with_seed(method_result: MethodResult) -> MethodResult:
    """Return the result with one seed, which has an accuracy."""
    score, metrics = method_result.mean_score, {"macro_f1": method_result.mean_score, "accuracy": 0.89}
    seed = SeedResult(
        seed=0, checkpoint_score=score, interval=method_result.interval, validation=score, metrics=metrics,
        measurements={}, checkpoint="checkpoints/x",
    )  # fmt: skip
    return replace(method_result, seeds=(seed,), checkpoint=seed)


def test_run_outcome_lists_tied_lower_eliminated_and_resolution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    finished = replace(SELECTION, finalists=(with_seed(LORA), ADAPTER, IA3))
    lines = text(monkeypatch, outcome(tmp_path, finished)).splitlines()
    assert lines[:12] == [
        "mail  lora is recommended: macro-F1 0.807 [0.787, 0.827] (95 % interval, 2,000 test rows, 3 seeds)",
        "  reason       lora has the best score of the 2 tied methods",
        "  alternative  prefer: size selects adapter",
        "  tied         adapter 0.799 [0.779, 0.819]",
        "  lower        ia3 0.710 (at least 0.050 lower)",
        "  eliminated   linear_probe 0.410 (validation)",
        "  resolution   least significant difference to the nearest rival: 0.026; a true difference of that size is"
        " found half of the time",
        "  accuracy     0.890 (majority class 0.500)",
        "  untuned      0.700 [0.680, 0.720] (lora with default parameters, 1 seed)",
        "  size         600k trainable parameters, 2.4 MB on disk",
        "  failed       ia3: 1 of 3 retrainings failed: out of memory",
        "  failed       prefix: it diverged",
    ]
    assert "  registered   NO: the server is away" in lines
    assert any("select tiny-1 --max-size 1MB" in line for line in lines)
    assert any("report tiny-1" in line for line in lines)


def test_run_outcome_of_a_sole_winner_that_is_registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    finished = outcome(tmp_path, selection(LORA, IA3))
    finished.tasks["mail"].registered = Registered("mail", 3, "champion")
    shown = text(monkeypatch, finished)
    assert shown.startswith("mail  lora wins: macro-F1")
    assert "  tied " not in shown
    assert "  registered   mail version 3, alias champion\n" in shown
    assert "predict mail@champion < rows.jsonl" in shown


def test_run_outcome_tells_probabilities_and_undecided_methods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    undecided = replace(PROBE, undecided=True, probability=0.11)
    lora, ia3 = replace(LORA, probability=0.84), replace(IA3, probability=0.05)
    lines = text(monkeypatch, outcome(tmp_path, selection(lora, ia3, others=(undecided,)))).splitlines()
    assert lines[0].startswith("mail  lora is recommended:"), "it does not win: a longer search may prefer another"
    told = "lora 0.84 that a full search would not prefer another; linear_probe 0.11, ia3 0.05"
    assert f"  probability  {told}" in lines
    assert (
        "  undecided    linear_probe 0.410 (validation): behind, but more trials may bring them ahead (95 % quantile)"
        in (lines)
    )
    assert not any("eliminated" in line for line in lines)


def test_run_outcome_begins_with_no_method_better_than_the_baseline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    constants = (replace(LORA, baseline_lead=(0.01, -0.02), collapsed_seeds=2), replace(IA3, cut=True, reason="cut"))
    baseline = Baseline(name="always answering negative", score=0.276, interval=(0.27, 0.282))
    finished = outcome(tmp_path, selection(constants[0], others=constants[1:], baselines=(baseline,)))
    finished.tasks["mail"].registered = Registered("mail", 3, "")
    lines = text(monkeypatch, finished).splitlines()
    assert lines[:3] == [
        "mail  no method was shown to be better than always answering negative (macro-F1 0.276 [0.270, 0.282])",
        "  closest      lora: macro-F1 0.807 [0.787, 0.827] (95 % interval, 2,000 test rows, 3 seeds)",
        "  lead         +0.010 against always answering negative, lower bound -0.020 (95 % level)",
    ]
    assert "  cut          ia3 0.710 (validation) by the cap on finalists, not by evidence" in lines
    assert "  baseline     macro-F1 0.276 [0.270, 0.282] always answering negative" in lines
    assert "  collapsed    lora: 2 of 3 seeds gave every row the same answer" in lines
    assert "  registered   mail version 3, without an alias: not shown to be better than the baseline" in lines
    assert not any("eliminated" in line for line in lines)
    values = view.outcome_json(finished)["tasks"]["mail"]
    assert (values["champion"], values["version"], values["state"]) == (None, 3, "no_better_than_baseline")


def test_run_outcome_of_several_tasks_chooses_overall(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = selection(ADAPTER, replace(LORA, tied=False, gap=0.01), task="post")
    shown = text(monkeypatch, outcome(tmp_path, SELECTION, other))
    assert "0.807 *" in shown
    assert "one method for all tasks: " in shown


def test_run_json_contains_the_selection(tmp_path: Path) -> None:
    values = view.outcome_json(outcome(tmp_path, SELECTION))
    mail = values["tasks"]["mail"]
    assert (mail["mean_score"], mail["checkpoint_score"]) == (0.807, 0.807)
    assert Selection.from_dict(mail["selection"]) == SELECTION
    assert Counter(entry["role"] for entry in mail["results"]) == {"champion": 1, "best": 3, "default": 1}
    assert values["overall"] is None


@pytest.mark.parametrize("server", ["", "http://mlflow.example/"])
def test_run_outcome_opens_the_runs_of_the_experiment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str
) -> None:
    config = {"mlflow": {"tracking_uri": server}} if server else {}
    ended = outcome(tmp_path, SELECTION, experiment="7")
    lines = text(monkeypatch, ended, **config)
    page = f"/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey={ended.folder.name}"
    assert f"{server.rstrip('/') or 'http://127.0.0.1:5000'}{page}" in lines
    assert ("mlflow ui --backend-store-uri sqlite:///mlflow.db" in lines) == (not server)
