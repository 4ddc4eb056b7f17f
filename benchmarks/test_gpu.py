"""The benchmark of a GPU, on tiny models and the processor; and what becomes of a stage that hangs or crashes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_stages import STAGES, Stage
from benchmarks.gpu_stages.supervisor import run_stages

ROOT = Path(__file__).parents[1]
HIDDEN = ("ray", "optuna", "mlflow", "cmaes", "gguf", "rich", "typer")
HIDE_PACKAGES = f"""
import sys

class WithoutPackages:
    # As if they were not installed: accelerate looks for mlflow with find_spec, which must not raise.
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {HIDDEN} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [WithoutPackages(finder) for finder in sys.meta_path]
"""


def hang(_: Any, report: Any) -> None:
    report.figure("begun", True)
    time.sleep(600)


def crash(*_: Any) -> None:
    os._exit(7)


def fail(_: Any, report: Any) -> None:
    report.figure("begun", True)
    raise ValueError("first line\nsecond line")


def work(lab: Any, report: Any) -> None:
    report.figure("pid", os.getpid())
    report.check("an open claim", ok=True)


def stage(function: Any, limit_s: float = 60.0, own_process: bool = False) -> Stage:
    return Stage(function.__name__, limit_s, f"benchmarks.test_gpu:{function.__name__}", own_process)


def test_gpu_stages_end_alone_and_leave_their_figures(tmp_path: Path) -> None:
    stages = [stage(fail), stage(work), stage(hang, limit_s=0.5), stage(crash), stage(work), stage(work, 60.0, True)]
    failed, worked, late, crashed, again, apart = run_stages(stages, "cpu", True, tmp_path)
    assert failed.line()["error"] == "ValueError: first line second line"
    assert late.line()["error"] == "took longer than its limit"
    assert crashed.line()["error"] == "its process ended with exit code 7"
    assert failed.figures == late.figures == {"begun": True}
    assert [result.ok for result in (worked, again, apart)] == [True] * 3
    assert len({result.figures["pid"] for result in (worked, again, apart)}) == 3


def test_gpu_stages_beyond_the_total_limit_fail(tmp_path: Path) -> None:
    first, second = run_stages([stage(work), stage(work)], "cpu", True, tmp_path, total_s=0.0)
    assert not first.ok
    assert not second.ok


@pytest.mark.slow
def test_gpu_benchmark_runs_on_the_processor_without_ray(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE_PACKAGES)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    *lines, last = map(json.loads, done.stdout.splitlines())
    assert [(line["stage"], line["error"]) for line in lines] == [(stage.name, None) for stage in STAGES]
    assert (last["stages"], last["failed"], done.returncode) == (len(STAGES), [], 0), done.stderr


def test_gpu_test_hides_the_packages(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE_PACKAGES)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for package in HIDDEN:
        command = [sys.executable, "-c", f"import {package}"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert f"No module named '{package}'" in done.stderr
