"""How long ``peft-sweep report`` takes for a sweep of 500 trials, and how large its file is: whole processes."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._common import emit
from orchestrator.simulation.written_sweep import WrittenSweep


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = WrittenSweep(Path(place) / "airline-20261121-220300", trials=given.trials).write()
        program = [str(Path(sys.executable).with_name("peft-sweep")), "report", str(folder), "--no-mlflow"]
        runs = [_timed(program, place) for _ in range(given.repeats)]
        wall, processor = (statistics.median(values) for values in zip(*runs, strict=True))
        size = (folder / "report.html").stat().st_size
    emit(benchmark="report", trials=given.trials, seconds=wall, processor_seconds=processor, megabytes=size / 1e6)


def _timed(command: list[str], folder: str) -> tuple[float, float]:
    """Wall and processor seconds of a process; a busy machine shows in the first alone."""
    begin, before = time.perf_counter(), os.times()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begin, used


if __name__ == "__main__":
    main()
