"""The command itself, as a process: what ends it, what it leaves, what it says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from ..small_sweep import COMMAND, NOISE, ends, environment, events, mlflow_runs, optuna_states, until, write_sweep

LADDER = [50, 100, 200, 400]
TRIALS = 8


class Driver:
    """A command that runs a sweep.

    Args:
        folder: where it runs.
        arguments: of ``peft-sweep``.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.said = folder / "said"
        with self.said.open("w") as output:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env=environment(folder),
            )
        self.family: list[psutil.Process] = []

    def end(self, *, signal: int) -> str:
        """Stop it, and return what it printed once none of its processes is left."""
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        assert self.family
        self.process.send_signal(signal)
        printed, _ = self.process.communicate(timeout=120)
        _, alive = psutil.wait_procs(self.family, timeout=180)  # Ray's agents look for their raylet now and then
        assert alive == [], "nothing is left running"
        return printed

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


def rungs(found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(event["trial"], event["step"]) for event in found if event["event"] == "rung"]


def statuses(folder: Path) -> dict[str, str]:
    runs = mlflow_runs(f"sqlite:///{folder / 'mlflow.db'}")
    found = {run.data.tags["key"]: run.info.status for run in runs}
    assert len(found) == len(runs), "each has one run"
    return found


@pytest.mark.ray
@pytest.mark.filterwarnings(*NOISE)
def test_a_sweep_that_is_stopped_and_then_killed_is_resumed_to_its_end(
    drive: Callable[..., Driver], tmp_path: Path
) -> None:
    changes = {"training": {"max_steps": LADDER[-1], "max_length": 16}, "search": {"first_rung": 0.125}}
    write_sweep(tmp_path, budget={"trials": TRIALS}, selection={"seeds": 2}, **changes)
    first = drive("run", "sweep.yaml")
    journal = until(lambda: next((tmp_path / "sweeps").glob("*/journal.jsonl"), None))
    until(lambda: rungs(events(journal)))
    printed = first.end(signal=signal.SIGINT)
    assert first.process.returncode == 130, first.said.read_text()
    assert f" resume {journal.parent}" in printed
    assert "Traceback" not in first.said.read_text()
    stopped = events(journal)
    assert (stopped[-1]["event"], stopped[-1]["reason"]) == ("close", "interrupted")
    assert {event["state"] for event in stopped if event["event"] == "end"} <= {"complete", "pruned"}
    assert set(statuses(tmp_path).values()) <= {"KILLED", "FINISHED"}

    second = drive("resume", "tiny", "--storage", str(tmp_path / "sweeps"))
    until(lambda: len(rungs(events(journal))) > len(rungs(stopped)))
    refused = drive("resume", str(journal.parent))
    refused.process.wait(timeout=180)
    assert refused.process.returncode == 2
    assert f"is still running (process {second.process.pid} on " in refused.said.read_text()
    second.end(signal=signal.SIGKILL)
    killed = events(journal)
    assert not [event for event in killed[len(stopped) :] if event["event"] in ("close", "registered")]

    third = drive("resume", str(journal.parent), "--json")
    printed, _ = third.process.communicate(timeout=400)
    assert third.process.returncode == 0, (journal.parent / "sweep.log").read_text()
    outcome = json.loads(printed)
    assert "resumed: " in third.said.read_text()

    found = events(journal)
    ended = ends(found)
    assert outcome["trials"] == ended
    assert len(ended) == TRIALS
    assert set(ended.values()) <= {"complete", "pruned"}
    assert found[: len(killed)] == killed, "what happened stays as it was told"
    assert len(set(rungs(found))) == len(rungs(found)), "no result counts twice"
    for trial, state in ended.items():
        steps = [step for name, step in rungs(found) if name == trial]
        assert steps == LADDER[: len(steps)]
        assert (steps == LADDER) == (state == "complete")
    assert [event["event"] for event in found].count("registered") == 1
    assert optuna_states(journal.parent) == {
        trial: {"complete": "COMPLETE", "pruned": "PRUNED"}[state] for trial, state in ended.items()
    }
    assert statuses(tmp_path) == {"mail": "FINISHED", **dict.fromkeys(ended, "FINISHED")}


def test_three_mistakes_are_three_lines_before_anything_starts(tmp_path: Path) -> None:
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
def test_what_is_not_there_is_one_line_and_no_traceback(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    file = write_sweep(tmp_path, **change)
    run = subprocess.run([*COMMAND, "plan", str(file)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert words in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_ray_client_addresses_are_refused_in_one_line(tmp_path: Path) -> None:
    file = write_sweep(tmp_path)
    command = [*COMMAND, "run", str(file), "--address", "ray://head:10001"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.splitlines()[0].startswith("--address: ray://head:10001")


@pytest.mark.slow
def test_plan_says_what_would_run_as_one_json_object(tmp_path: Path) -> None:
    file = write_sweep(tmp_path)
    command = [*COMMAND, "plan", str(file), "--json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    plan = yaml.safe_load(run.stdout)
    assert [one["name"] for one in plan["tasks"]["mail"]["methods"]] == ["lora", "linear_probe"]
    assert plan["rungs"] == [1, 2, 4]
    assert not (tmp_path / "sweeps").exists()
