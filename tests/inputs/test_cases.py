"""Every configuration of ``cases`` that cannot be used ends ``plan`` with its line, and before torch is imported."""

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

CASES_FILE = Path(__file__).parent / "cases" / "configs.yaml"
CASES: dict[str, dict[str, Any]] = yaml.safe_load(CASES_FILE.read_text(encoding="utf-8"))
MEDIAN_LIMIT_S = 1.5


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each case ended in, all in one process in which to import torch fails."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')")
    (folder / "plans").mkdir()
    script = Path(__file__).with_name("run_cases.py")
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"}
    command = [sys.executable, str(script), str(CASES_FILE), str(folder / "plans")]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    assert not answer["torch"]
    cases: dict[str, dict[str, Any]] = answer["cases"]
    return cases


@pytest.mark.parametrize("name", CASES)
def test_bad_configuration_ends_in_its_lines(results: dict[str, dict[str, Any]], name: str) -> None:
    result = results[name]
    assert (result["code"], result["lines"], result["written"]) == (2, CASES[name]["lines"], [])
    assert "unexpected " not in " ".join(result["lines"]).replace("unexpected end of stream", "")


def test_bad_configurations_are_told_within_their_time(results: dict[str, dict[str, Any]]) -> None:
    median = statistics.median(result["seconds"] for result in results.values())
    print(f"{len(results)} cases, median {median:.3f} s in one process")
    assert median < MEDIAN_LIMIT_S
