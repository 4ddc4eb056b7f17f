"""Sweeps that release 0.1 left: their journals are read, and an interrupted one is resumed to its end."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.common.trial_types import TrialKey, checkpoint_path
from orchestrator.sweep.manifest import changed_inputs, identity
from orchestrator.sweep.resume import resumed_plan
from orchestrator.sweep.saved_state import SavedSweep

from ..small_sweep import COMMAND, NOISE, ends, environment, events, optuna_states

RELEASE_0_1 = Path(__file__).parents[1] / "data" / "sweeps_of_0_1"
FINISHED, INTERRUPTED = "finished-20261126-164710", "interrupted-20261126-164745"
RUNGS = [50, 100, 200, 400]
COMPLETED = {"mail/linear_probe/0", "mail/linear_probe/3"}
PAUSED = {"mail/lora/1", "mail/lora/2", "mail/linear_probe/1", "mail/linear_probe/2", "mail/linear_probe/4"}
RUNNING = {"mail/lora/0"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user of release 0.1: checkpoint, rows and two sweeps."""
    shutil.copytree(RELEASE_0_1 / "checkpoint", tmp_path / "checkpoint")
    shutil.copy2(RELEASE_0_1 / "rows.csv", tmp_path / "rows.csv")
    shutil.copytree(RELEASE_0_1 / "storage", tmp_path / "sweeps")
    for journal in (tmp_path / "sweeps").glob("*/journal.jsonl"):
        journal.write_text(journal.read_text().replace("@FOLDER@", str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(folder: Path, sweep: str) -> SavedSweep:
    return SavedSweep.of(folder / "sweeps" / sweep)


def rungs(journal: Sequence[Any]) -> list[tuple[str, int]]:
    return [(event["trial"], event["step"]) for event in journal if event["event"] == "rung"]


def checkpoint_files(sweep: Path, trial_rungs: list[tuple[str, int]]) -> dict[Path, tuple[int, int]]:
    """Inode and modification time of each file in the checkpoints of these rungs: writing it again changes them."""
    folders = [sweep / checkpoint_path(TrialKey.parse(trial), step) for trial, step in trial_rungs]
    files = [file for checkpoint in folders for file in checkpoint.rglob("*") if file.is_file()]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def test_finished_sweep_of_0_1_is_finished(folder: Path) -> None:
    sweep = saved(folder, FINISHED)
    assert sweep.finished
    assert (sweep.attempts, sweep.search_ended) == (1, "finished")
    assert (sweep.trials_done, sweep.trials_left) == (6, 0)
    assert list(sweep.registered) == ["mail"]


def test_finished_sweep_of_0_1_gives_its_answers(folder: Path) -> None:
    answers = saved(folder, FINISHED).answers
    assert set(answers) == {
        f"mail/{method}/0/seed-{seed}:0-4:test" for method in ("lora", "linear_probe") for seed in (0, 1)
    }
    for answer in answers.values():
        assert answer.step == 4
        assert 0 <= answer.metrics["accuracy"] <= 1
        assert 0 <= answer.validation["accuracy"] <= 1
        assert answer.measurements["adapter_bytes"] > 0, "release 0.1 called measurements facts"
        assert all(math.isfinite(value) for value in answer.measurements.values())


def test_interrupted_sweep_of_0_1_gives_its_open_trials(folder: Path) -> None:
    sweep = saved(folder, INTERRUPTED)
    assert not sweep.finished
    assert (sweep.trials_done, sweep.trials_left, sweep.search_ended) == (2, 6, None)
    assert (sweep.answers, sweep.registered) == ({}, {})
    ended = {event["trial"] for event in sweep.events if event["event"] == "end"}
    began = {event["trial"] for event in sweep.events if event["event"] == "trial"}
    assert (ended, began - ended) == (COMPLETED, PAUSED | RUNNING)


def test_interrupted_sweep_of_0_1_gives_measurements_of_each_rung(folder: Path) -> None:
    reports = [event for event in saved(folder, INTERRUPTED).events if event["event"] == "rung"]
    assert len(reports) == 17
    for report in reports:
        assert "facts" not in report
        assert report["measurements"]["train_seconds"] > 0


def test_resume_plans_a_sweep_of_0_1_as_it_was(folder: Path) -> None:
    sweep = saved(folder, INTERRUPTED)
    plan = resumed_plan(sweep)
    assert changed_inputs(sweep.description["identity"], identity(plan)) == []
    later: dict[str, Any] = {"chat_template": {}}  # that release knew no conversations
    assert identity(plan) == sweep.description["identity"] | later
    assert list(plan.rungs) == RUNGS
    assert [study.study for study in plan.studies] == ["mail/lora", "mail/linear_probe"]
    for key in ("methods", "budget", "training", "search", "seed", "storage"):
        assert plan.config.resolved()[key] == sweep.description["config"][key]


@pytest.mark.ray
@pytest.mark.filterwarnings(*NOISE)
def test_resume_finishes_an_interrupted_sweep_of_0_1(folder: Path) -> None:
    sweep = folder / "sweeps" / INTERRUPTED
    before = events(sweep / "journal.jsonl")
    files = checkpoint_files(sweep, rungs(before))
    command = [*COMMAND, "resume", INTERRUPTED, "--storage", "sweeps", "--json"]
    run = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment(folder), timeout=500, check=False
    )
    assert run.returncode == 0, run.stderr + (sweep / "sweep.log").read_text()
    outcome = json.loads(run.stdout)
    assert outcome["reason"] == "finished"
    assert "resumed: 2 of 8 trials are done" in run.stderr

    journal = events(sweep / "journal.jsonl")
    assert journal[: len(before)] == before, "earlier events stay as they were written"
    ended = ends(journal)
    assert set(ended) == COMPLETED | PAUSED | RUNNING
    assert outcome["trials"] == ended
    assert set(ended.values()) <= {"complete", "pruned"}
    assert ended["mail/lora/0"] == "complete", "it was on its way to the last rung"

    assert len(set(rungs(journal))) == len(rungs(journal)), "no rung is reported twice"
    for trial, state in ended.items():
        steps = [step for name, step in rungs(journal) if name == trial]
        assert steps == RUNGS[: len(steps)]
        assert (steps == RUNGS) == (state == "complete")
    kept = checkpoint_files(sweep, rungs(before))  # those that nothing reads any more are deleted
    assert kept
    assert kept.items() <= files.items(), "no rung that was reported is trained again"
    assert optuna_states(sweep) == {
        trial: {"complete": "COMPLETE", "pruned": "PRUNED"}[state] for trial, state in ended.items()
    }
    assert saved(folder, INTERRUPTED).finished
