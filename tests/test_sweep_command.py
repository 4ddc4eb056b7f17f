"""The command itself, as a process: what ends it, what it leaves, what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from .small_sweep import NOISE, ends, events, mlflow_runs, optuna_states, until, write_sweep

COMMAND = [sys.executable, "-m", "orchestrator.cli"]
LONG = {"max_steps": 100_000, "max_length": 16}


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PEFT_SWEEP_CACHE": str(folder / "cache")}


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep that would take for ever, searching."""
    file = write_sweep(tmp_path, training=LONG, search={"first_rung": 0.0001, "reduction_factor": 100})
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [*COMMAND, "run", str(file)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            env=environment(tmp_path),
        )
        yield process
        for child in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
            child.kill()
        process.kill()
        process.communicate()


@pytest.mark.ray
@pytest.mark.filterwarnings(*NOISE)
def test_an_interrupted_sweep_ends_in_good_order(started: subprocess.Popen[str], tmp_path: Path) -> None:
    journal = until(lambda: next((tmp_path / "sweeps").glob("*/journal.jsonl"), None))
    until(lambda: any(event["event"] == "rung" for event in events(journal)))
    family = psutil.Process(started.pid).children(recursive=True)
    assert family
    started.send_signal(signal.SIGINT)
    said, _ = started.communicate(timeout=60)
    assert started.returncode == 130, (tmp_path / "output").read_text()
    assert "Stopped" in said
    assert "Traceback" not in (tmp_path / "output").read_text()

    found = events(journal)
    assert (found[-1]["event"], found[-1]["reason"]) == ("close", "interrupted")
    assert "killed" in ends(found).values()
    assert not {"RUNNING", "WAITING"} & set(optuna_states(journal.parent).values())
    runs = mlflow_runs(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {run.info.status for run in runs} <= {"KILLED", "FINISHED"}
    killed = {run.data.tags.get("trial_key") for run in runs if run.info.status == "KILLED"}
    assert {trial for trial, state in ends(found).items() if state == "killed"} <= killed
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == [], "nothing is left running"


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
