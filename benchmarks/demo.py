"""The demo from an empty cache: its duration, its champion's scores, and whether the registered model reproduces them.

    python -m benchmarks.demo

Runs ``peft-sweep run examples/airline.yaml --json`` in an empty folder with an empty cache, then ``models verify`` in a
new process, and prints one JSON line:

- ``seconds``: wall seconds of the run. ``busy_share_by_lane``: fraction of a lane's time in steps and scoring.
- ``macro_f1`` and its 95 % ``interval``, ``accuracy``: of the champion ``method`` on the test rows. Macro-F1 is the
  mean over retrainings with different seeds.
- ``majority``: accuracy of the majority class. ``linear_probe_interval``: 95 % interval of that method's macro-F1.
- ``default_macro_f1``: of the champion's method in its default configuration; ``champion_is_default`` is true if the
  champion has that configuration itself.
- ``verified_rows`` and ``largest_probability_difference``: rows that the registered model predicted again, and the
  largest difference of a probability from the recorded one.
- ``targets_met``: whether each target of the demo is met.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._command_line import argument_parser, emit

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "airline.yaml"


def main() -> None:
    """Run the demo, verify its model, and print the line."""
    argument_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        outcome = run_command(folder, "run", str(EXAMPLE), "--json")
        seconds = time.perf_counter() - start
        verification = run_command(folder, "models", "verify", "airline@champion", "--json")
    task = outcome["tasks"]["airline"]
    by_role = {(result["role"], result["trial"].split("/")[1]): result for result in task["results"]}
    probe, default = by_role.get(("best", "linear_probe")), by_role.get(("default", task["method"]))
    emit(
        benchmark="demo",
        seconds=seconds,
        busy_share_by_lane=outcome["lanes"],
        method=task["method"],
        macro_f1=task["mean_score"],
        interval=task["interval"],
        accuracy=task["metrics"]["accuracy"],
        majority=task["majority"],
        linear_probe_interval=probe and probe["interval"],
        default_macro_f1=default["mean_score"] if default else task["mean_score"],
        champion_is_default=default is None,
        verified_rows=verification["rows"],
        largest_probability_difference=verification["largest_difference"],
        targets_met={
            "under 5 minutes": seconds < 300,
            "macro-F1 at least 0.76": task["mean_score"] >= 0.76,
            "accuracy at least 0.85": task["metrics"]["accuracy"] >= 0.85,
            "macro-F1 above linear_probe's interval": probe is None or task["mean_score"] > probe["interval"][1],
            "macro-F1 at most a standard error below the default configuration's": default is None
            or task["mean_score"] >= default["mean_score"] - standard_error(task["interval"]),
            "probabilities reproduced within 1e-6": verification["ok"],
        },
    )


def standard_error(interval: list[float]) -> float:
    """Return the standard error of an estimate with a normal 95 % interval."""
    return (interval[1] - interval[0]) / (2 * 1.96)


def run_command(folder: str, *arguments: str) -> Any:
    """Run a command of peft-sweep in ``folder`` and return its JSON output."""
    program = str(Path(sys.executable).with_name("peft-sweep"))
    environment = {**os.environ, "PEFT_SWEEP_CACHE": f"{folder}/cache"}
    process = subprocess.run([program, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(process.stdout)


if __name__ == "__main__":
    main()
