"""Every file and configuration of ``cases`` that cannot be used ends its command with its line.

``configs.yaml`` has changes of a configuration, ``data.yaml`` files of rows in ``data`` and how they are read, and
``commands.yaml`` folders in ``folders`` with a command to run in them. None needs torch.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parent / "cases"
INDICES = ("configs", "data", "commands")
CASES: dict[str, dict[str, dict[str, Any]]] = {
    name: yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) for name in INDICES
}
NAMES = [(index, name) for index, cases in CASES.items() for name in cases]
MEDIAN_LIMIT_S = 1.5


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each case ended in, all in one process in which to import torch fails."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')")
    script = Path(__file__).with_name("run_cases.py")
    indices = [str(FOLDER / f"{index}.yaml") for index in CASES]
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"}
    command = [sys.executable, str(script), *indices, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    assert not answer["torch"]
    cases: dict[str, dict[str, Any]] = answer["results"]
    return cases


@pytest.mark.parametrize(("index", "name"), NAMES)
def test_case_ends_in_its_lines_and_writes_nothing(results: dict[str, dict[str, Any]], index: str, name: str) -> None:
    result, case = results[index][name], CASES[index][name]
    assert (result["code"], result["lines"], result["written"]) == (case.get("code", 2), case["lines"], [])
    assert result["lines"]
    assert not any("unexpected " in line.replace("unexpected end of stream", "") for line in result["lines"])


def test_cases_are_told_within_their_time(results: dict[str, dict[str, Any]]) -> None:
    seconds = [result["seconds"] for cases in results.values() for result in cases.values()]
    median = statistics.median(seconds)
    print(f"{len(seconds)} cases, median {median:.3f} s, {sum(seconds):.1f} s in all, in one process")
    assert median < MEDIAN_LIMIT_S


def test_every_file_of_the_cases_is_used() -> None:
    used = {case.get("beside", case["data"]) for case in CASES["data"].values()}
    assert {file.name for file in (FOLDER / "data").iterdir()} <= used
    assert {file.name for file in (FOLDER / "folders").iterdir()} == {
        case["folder"] for case in CASES["commands"].values()
    }
