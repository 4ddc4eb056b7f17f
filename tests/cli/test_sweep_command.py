"""Commands as processes: how they end, what they leave behind, and what they print."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from orchestrator.sweep.state import State, request_stop, sweep_state

from ..polling import until
from ..small_sweep import COMMAND, NOISE, ends, environment, events, mlflow_runs, optuna_states, write_sweep

LADDER = [50, 100, 200, 400]
TRIALS = 8


class Driver:
    """A process that runs a sweep.

    Args:
        folder: its working directory.
        arguments: arguments of ``peft-sweep``.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.stderr = folder / "stderr.txt"
        with self.stderr.open("w") as output:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env=environment(folder),
            )
        self.family: list[psutil.Process] = []

    def end(self, how: Callable[[], Any]) -> str:
        """End the driver by a function, wait until it has ended, and return its standard output."""
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        assert self.family
        how()
        printed, _ = self.process.communicate(timeout=120)
        return printed

    def wait_until_nothing_is_left(self) -> None:
        """Wait for the processes that the driver had started."""
        _, alive = psutil.wait_procs(self.family, timeout=180)  # Ray's agents check for their raylet only now and then
        assert alive == [], "nothing is left running"

    def kill(self) -> None:
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    drivers: list[Driver] = []

    def start(*arguments: str) -> Driver:
        drivers.append(Driver(tmp_path, *arguments))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.kill()


def rungs(journal: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(event["trial"], event["step"]) for event in journal if event["event"] == "rung"]


def statuses(folder: Path) -> dict[str, str]:
    runs = mlflow_runs(f"sqlite:///{folder / 'mlflow.db'}")
    by_key = {run.data.tags["key"]: run.info.status for run in runs}
    assert len(by_key) == len(runs), "every task and trial has one run"
    return by_key


def ask_to_stop(folder: Path) -> None:
    """Do what ``peft-sweep stop`` does, without the seconds that a process needs to start."""
    state = sweep_state(folder.name, str(folder.parent))
    assert state.state is State.RUNNING
    request_stop(state, str(folder.parent))


def command(folder: Path, *arguments: str) -> Any:
    """Return what a command prints, parsed where that is JSON."""
    run = subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout) if "--json" in arguments else run.stdout


@pytest.mark.ray
@pytest.mark.filterwarnings(*NOISE)
def test_resume_finishes_sweep_that_was_stopped_and_killed(drive: Callable[..., Driver], tmp_path: Path) -> None:
    changes: dict[str, Any] = {"training": {"max_steps": LADDER[-1], "max_length": 16}, "search": {"first_rung": 0.125}}
    write_sweep(tmp_path, budget={"trials": TRIALS}, selection={"seeds": 2}, **changes)
    first = drive("run", "sweep.yaml")
    journal = until(lambda: next((tmp_path / "sweeps").glob("*/journal.jsonl"), None))
    until(lambda: rungs(events(journal)))
    printed = first.end(lambda: ask_to_stop(journal.parent))
    first.wait_until_nothing_is_left()
    assert first.process.returncode == 130, first.stderr.read_text()
    assert f" resume {journal.parent}" in printed
    assert f"peft-sweep resume {journal.parent.name}" in command(tmp_path, "stop", "tiny")
    assert "Traceback" not in first.stderr.read_text()
    stopped = events(journal)
    assert (stopped[-1]["event"], stopped[-1]["reason"]) == ("close", "interrupted")
    assert {event["state"] for event in stopped if event["event"] == "end"} <= {"complete", "pruned"}
    assert set(statuses(tmp_path).values()) <= {"KILLED", "FINISHED"}

    second = drive("resume", "tiny", "--storage", str(tmp_path / "sweeps"))
    until(lambda: len(rungs(events(journal))) > len(rungs(stopped)))
    refused = drive("resume", str(journal.parent))
    refused.process.wait(timeout=180)
    assert refused.process.returncode == 2
    assert f"is still running (process {second.process.pid} on " in refused.stderr.read_text()
    second.end(second.process.kill)
    killed = events(journal)
    assert not [event for event in killed[len(stopped) :] if event["event"] in ("close", "registered")]

    third = drive("resume", str(journal.parent), "--json")
    printed, _ = third.process.communicate(timeout=400)
    assert third.process.returncode == 0, (journal.parent / "sweep.log").read_text()
    outcome = json.loads(printed)
    assert "resumed: " in third.stderr.read_text()

    finished = events(journal)
    ended = ends(finished)
    assert outcome["trials"] == ended
    assert len(ended) == TRIALS
    assert set(ended.values()) <= {"complete", "pruned"}
    assert finished[: len(killed)] == killed, "earlier events stay as they were written"
    assert len(set(rungs(finished))) == len(rungs(finished)), "no rung is reported twice"
    for trial, state in ended.items():
        steps = [step for name, step in rungs(finished) if name == trial]
        assert steps == LADDER[: len(steps)]
        assert (steps == LADDER) == (state == "complete")
    assert [event["event"] for event in finished].count("registered") == 1
    assert optuna_states(journal.parent) == {
        trial: {"complete": "COMPLETE", "pruned": "PRUNED"}[state] for trial, state in ended.items()
    }
    expected = {trial: {"complete": "FINISHED", "pruned": "KILLED"}[state] for trial, state in ended.items()}
    assert statuses(tmp_path) == {"mail": "FINISHED", **expected}
    second.wait_until_nothing_is_left()


def test_run_prints_a_line_per_mistake_before_starting(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, methods=["lora", "lorra"], budget={"trials": 0}, seeed=1)
    code = (
        "import sys\nfrom orchestrator import cli\n"
        "try:\n    cli.main()\n"
        "finally:\n    print(sorted({'ray', 'torch', 'mlflow', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, "run", str(file)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    lines = run.stderr.splitlines()
    assert len(lines) == 3, run.stderr
    for line, key in zip(sorted(lines), ("budget.trials", "methods", "seeed"), strict=True):
        assert key in line
    assert run.stdout.strip() == "[]", "nothing heavy was even imported"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": {"model": "./nowhere"}}, "nowhere"),
        ({"tasks": {"mail": {"type": "classification", "data": "no.csv", "text": "t", "label": "l"}}}, "no.csv"),
    ],
)
def test_plan_refuses_missing_files_in_one_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    file = write_sweep(tmp_path, **change)
    run = subprocess.run([*COMMAND, "plan", str(file)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_run_refuses_ray_client_address_in_one_line(tmp_path: Path) -> None:
    file = write_sweep(tmp_path)
    command = [*COMMAND, "run", str(file), "--address", "ray://head:10001"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.splitlines()[0].startswith("--address: ray://head:10001")


@pytest.mark.slow
def test_plan_json_lists_methods_and_rungs(tmp_path: Path) -> None:
    file = write_sweep(tmp_path)
    command = [*COMMAND, "plan", str(file), "--json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    plan = yaml.safe_load(run.stdout)
    assert [row["name"] for row in plan["tasks"]["mail"]["methods"]] == ["lora", "linear_probe"]
    assert plan["rungs"] == [1, 2, 4]
    assert not (tmp_path / "sweeps").exists()
