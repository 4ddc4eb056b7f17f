"""``peft-sweep explain``: what it tells about trials and methods, of sweeps in every state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator import cli
from orchestrator.common.errors import InputError
from orchestrator.journal.events import Journal
from orchestrator.report.explain import MAX_LINES, Explanation, explain
from orchestrator.simulation.written_sweep import WrittenSweep

TASK = {"metric": "macro_f1", "higher_is_better": True}


def rung(trial: str, step: int, value: float | None) -> dict[str, Any]:
    return {"event": "rung", "trial": trial, "step": step, "value": value, "lane_seconds": 2.0}


RUNNING: list[dict[str, Any]] = [
    {"event": "sweep", "sweep": "mail-1", "tasks": {"mail": TASK}, "left_out": {"mail/ptv": "needs a decoder"}},
    {"event": "trial", "trial": "mail/lora/0", "params": {"rank": 8}},
    rung("mail/lora/0", 4, 0.6),
    {"event": "trial", "trial": "mail/lora/1", "params": {"rank": 4, "learning_rate": 0.00123456}},
    rung("mail/lora/1", 4, 0.5),
    {"event": "pause", "trial": "mail/lora/1", "step": 4},
    {"event": "trial", "trial": "mail/lora/2", "params": {"rank": 2}},
    {"event": "move", "lane": 1, "trial": "mail/lora/2", "job": "mail/lora/2", "step": 0},
    rung("mail/lora/2", 4, 0.4),
    {"event": "pause", "trial": "mail/lora/2", "step": 4},
    {"event": "trial", "trial": "mail/ia3/0", "params": {}},
    rung("mail/ia3/0", 4, None),
    {"event": "end", "trial": "mail/ia3/0", "state": "pruned", "reason": "the metric is nan at step 4"},
    {"event": "trial", "trial": "mail/lora/3", "params": {"rank": 1}},
    rung("mail/lora/3", 4, 0.3),
    {"event": "pause", "trial": "mail/lora/3", "step": 4},
    {"event": "promote", "trial": "mail/lora/1", "step": 4},
    {"event": "drop", "study": "mail/ia3", "bound": 0.31, "best": 0.3, "leader": "mail/lora", "leader_best": 0.7}
    | {"margin": 0.04, "pulls": 8.2},
]
STOPPED = [
    {"event": "end", "trial": "mail/lora/2", "state": "pruned", "reason": "behind the others of its method at step 4"},
    {"event": "close", "reason": "interrupted", "message": ""},
]


def told(events: list[dict[str, Any]], name: str) -> Explanation:
    return explain("mail-1", [{"time": 5.0 + second, **event} for second, event in enumerate(events)], name)


def test_explain_tells_places_at_a_rung_as_they_were() -> None:
    explanation = told(RUNNING, "lora/1")
    assert explanation.subject == "mail/lora/1"
    assert dict(explanation.lines)["tried"] == "rank 4, learning_rate 0.00123"
    assert dict(explanation.lines)["decided"] == (
        "paused at step 4 with 0.500, place 2 of 2 there (the best has 0.600);"
        " went on later at step 4 with 0.500, place 2 of 4 there (the best has 0.600)"
    )
    assert explanation.numbers["decisions"][1] == {
        "what": "went on later", "step": 4, "value": 0.5, "place": 2, "results": 4
    }  # fmt: skip


def test_explain_tells_retry_and_end_of_a_stopped_trial() -> None:
    explanation = told(RUNNING + STOPPED, "mail/lora/2")
    assert explanation.outcome.startswith("stopped early at step 4 of 4: behind the others of its method")
    lines = dict(explanation.lines)
    assert lines["retried"] == "1 time in another lane, when its node was taken back"
    assert lines["decided"].endswith(
        "not continued by the end of the search, then place 3 of 4 there (the best has 0.600)"
    )


def test_explain_tells_why_a_method_was_dropped() -> None:
    explanation = told(RUNNING, "ia3")
    lines = dict(explanation.lines)
    assert lines["race"] == (
        "dropped from the race after the cost of 8.2 full trials: not expected to reach lora;"
        " upper bound 0.310, lora has 0.700, margin 0.040"
    )
    assert "the metric is nan" in lines["ended early"]
    assert explanation.numbers["drop"]["pulls"] == 8.2


def test_explain_tells_why_a_method_was_left_out() -> None:
    assert told(RUNNING, "ptv").outcome == "left out: needs a decoder"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lorra", "there is no such trial or method; near: lora"),
        ("lora/9", "near: lora/"),
        ("x", "its methods: mail/lora"),
    ],
)
def test_explain_refuses_unknown_names_with_near_ones(name: str, words: str) -> None:
    with pytest.raises(InputError) as refusal:
        told(RUNNING, name)
    (line,) = refusal.value.lines()
    assert line.startswith(f"mail-1: {name}: ")
    assert words in line


def test_explain_asks_for_the_task_of_an_ambiguous_name(tmp_path: Path) -> None:
    folder = WrittenSweep(tmp_path / "two-1", trials=14, tasks=("mail", "chat")).write()
    with pytest.raises(InputError, match="2 tasks have one; write mail/lora or chat/lora"):
        explain("two-1", Journal.read(folder / "journal.jsonl"), "lora")


@pytest.mark.parametrize("ending", ["finished", "interrupted", "failed", ""])
def test_explain_takes_ten_lines_for_every_name(tmp_path: Path, ending: str) -> None:
    folder = WrittenSweep(tmp_path / "mail-1", trials=30).write(ending)
    events = Journal.read(folder / "journal.jsonl")
    trials = [event["trial"] for event in events if event["event"] == "trial"]
    for name in {*trials, *(trial.rpartition("/")[0] for trial in trials), "multitask_prompt"}:
        explanation = explain("mail-1", events, name)
        assert 1 + len(explanation.lines) <= MAX_LINES
        json.dumps(explanation.to_dict())


def test_explain_tells_the_choice_of_the_recommended(tmp_path: Path) -> None:
    folder = WrittenSweep(tmp_path / "mail-1", trials=30).write()
    selection = next(e for e in Journal.read(folder / "journal.jsonl") if e["event"] == "selection")
    lines = dict(explain("mail-1", Journal.read(folder / "journal.jsonl"), selection["trial"]).lines)
    assert lines["final"] == f"chosen: {selection['reason']}"
    eliminated = selection["others"][0]["method"]
    lines = dict(explain("mail-1", Journal.read(folder / "journal.jsonl"), eliminated).lines)
    assert lines["screening"].startswith("not passed: 0.150 lower than lora")


def test_explain_of_a_result_no_better_than_the_baseline_chooses_nothing(tmp_path: Path) -> None:
    folder = WrittenSweep(tmp_path / "mail-1", trials=30).write()
    events = Journal.read(folder / "journal.jsonl")
    selection = next(event for event in events if event["event"] == "selection")
    selection["baselines"] = [{"name": "always answering negative", "score": 0.84, "interval": [0.83, 0.85]}]
    selection["finalists"][0]["baseline_lead"] = [0.01, -0.01]
    for name in (selection["trial"], selection["recommended"]):
        final = dict(explain("mail-1", events, name).lines)["final"]
        baseline = "always answering negative (macro-F1 0.840 [0.830, 0.850])"
        assert final == f"closest: no method was shown to be better than {baseline}"


def test_explain_tells_split_level_and_rows_of_scores(tmp_path: Path) -> None:
    folder = WrittenSweep(tmp_path / "mail-1", trials=30).write()
    events = Journal.read(folder / "journal.jsonl")
    next(event for event in events if event["event"] == "selection")["look"] = 2
    lines = dict(explain("mail-1", events, "lora").lines)
    assert "] (97.5 % interval, 2,069 test rows), 3 scores: " in lines["test"]
    assert " on validation at step 100" in lines["best"]


def test_explain_names_a_version_that_was_registered_twice_once(tmp_path: Path) -> None:
    folder = WrittenSweep(tmp_path / "mail-1", trials=30).write()
    journal = Journal(folder / "journal.jsonl")
    for alias in ("", "champion"):
        methods = {"lora": {"version": 2, "alias": alias}}
        journal.append("registered", task="airline", name="airline", version=2, aliases=[], methods=methods)
    lines = dict(explain("mail-1", Journal.read(folder / "journal.jsonl"), "lora").lines)
    assert lines["registered"] == "airline version 2, alias champion"


def test_explain_command_prints_json_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    WrittenSweep(tmp_path / "sweeps" / "mail-1", trials=14).write("interrupted")
    run = CliRunner()
    text = run.invoke(cli.app, ["explain", "mail", "lora"], catch_exceptions=False).output
    assert text.startswith("airline/lora  ")
    assert len(text.splitlines()) <= MAX_LINES
    answer = json.loads(run.invoke(cli.app, ["explain", "mail", "lora/0", "--json"], catch_exceptions=False).output)
    assert answer["subject"] == "airline/lora/0"
    assert answer["state"] == "complete"
