"""Time of ``peft-sweep report`` on a sweep of 500 trials, and the size of its file.

    python -m benchmarks.report

The sweep is a simulated one, without MLflow. The JSON line has the medians over repeats of a whole process: wall
``seconds`` and ``cpu_seconds`` (user and system), which other load on the machine hardly changes; and ``megabytes``,
the size of report.html in 10^6 bytes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._command_line import argument_parser, emit
from orchestrator.simulation.written_sweep import WrittenSweep


def main() -> None:
    """Write a sweep, and measure the command on it."""
    parser = argument_parser(__doc__)
    parser.add_argument("--trials", type=int, default=500, help="trials of the sweep (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the command (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = WrittenSweep(Path(root) / "airline-20261121-220300", trials=arguments.trials).write()
        command = [str(Path(sys.executable).with_name("peft-sweep")), "report", str(folder), "--no-mlflow"]
        times = [_measure_command(command, root) for _ in range(arguments.repeats)]
        wall_seconds, cpu_seconds = (statistics.median(values) for values in zip(*times, strict=True))
        size = (folder / "report.html").stat().st_size
    emit(
        benchmark="report",
        trials=arguments.trials,
        seconds=wall_seconds,
        cpu_seconds=cpu_seconds,
        megabytes=size / 1e6,
    )


def _measure_command(command: list[str], folder: str) -> tuple[float, float]:
    """Run a command, and return the wall and CPU seconds of its process."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = os.times()
    cpu_seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, cpu_seconds


if __name__ == "__main__":
    main()
