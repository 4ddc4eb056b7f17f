"""What a start waits for, on a command that writes a journal as a sweep does."""

import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks._startup_causes import measure_startup

SWEEP = """
import json, pathlib, time
folder = pathlib.Path("sweeps/one")
folder.mkdir(parents=True)
while time.process_time() < 0.3:
    pass
with (folder / "journal.jsonl").open("w") as journal:
    for event in ("sweep", "trial", "lane"):
        journal.write(json.dumps({"time": time.time(), "event": event}) + "\\n")
        journal.flush()
time.sleep(600)
"""


def run(tmp_path: Path, script: str) -> dict[str, Any]:
    return measure_startup([sys.executable, "-c", script, "-m orchestrator.cli"], tmp_path, os.environ)


def test_startup_is_measured_until_the_first_lane_works(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    result = run(tmp_path, SWEEP)
    milestones = result["milestones"]
    assert list(milestones) == ["driver", "journal", "lane"]
    assert 0 <= milestones["driver"] < milestones["journal"] <= milestones["lane"]
    assert 0.25 <= result["processor_seconds"]["driver"] == result["processor_seconds"]["all"] < 5
    assert (result["processes"], result["processes_with_torch"]) == (1, 0)
    assert set(psutil.Process().children()) == before, "the sweep has ended"


def test_startup_of_a_command_that_ends_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no lane of .+ worked"):
        run(tmp_path, "")
