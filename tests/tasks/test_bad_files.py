"""Every file of ``bad_files`` that cannot be used ends in the line that stands beside it."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tasks.bad_file import NAMES, lines_of, write_case

FOLDER = Path(__file__).parent / "bad_files"
CASES: dict[str, dict[str, Any]] = {
    f"{path.stem}: {name}": case
    for path in sorted(FOLDER.glob("*.yaml"))
    for name, case in yaml.safe_load(path.read_text(encoding="utf-8")).items()
}
IN_A_PROCESS = [
    "csv: not utf-8",
    "json: array that is cut",
    "parquet: nan among labels",
    "layouts: rows of two layouts",
]


@pytest.mark.parametrize("name", CASES)
def test_bad_file_ends_in_its_line(tmp_path, name):
    case = CASES[name]
    assert {*case} <= {*NAMES, "lines"}
    assert case["lines"]
    assert lines_of(case, tmp_path) == case["lines"]


def plan(folder: Path) -> tuple[int, list[str], float]:
    """Run ``plan`` in a process of its own that cannot import torch, and return code, lines and seconds."""
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')")
    command = [sys.executable, "-m", "orchestrator.cli", "plan", str(folder / "sweep.yaml")]
    environment = {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}", "PATH": "/usr/bin:/bin"}
    start = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [line.replace(f"{folder}/", "").replace(str(folder), "FOLDER") for line in ended.stderr.splitlines()]
    return ended.returncode, [line for line in lines if not line.endswith(" ...")], time.monotonic() - start


@pytest.mark.parametrize(
    "name",
    [name if name in IN_A_PROCESS else pytest.param(name, marks=pytest.mark.exhaustive) for name in CASES],
)
def test_bad_file_ends_plan_with_code_2_before_torch_is_imported(tmp_path, name):
    write_case(CASES[name], tmp_path)
    code, lines, _ = plan(tmp_path)
    assert (code, lines) == (2, CASES[name]["lines"])
