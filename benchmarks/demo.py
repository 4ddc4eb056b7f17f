"""The demo as a newcomer meets it: how long it takes, what it finds, and whether the registered model reproduces it.

Runs ``peft-sweep run examples/airline.yaml --json`` in an empty folder with an empty cache, then ``models verify`` in a
fresh process, and prints one JSON line with every figure beside what it must reach.
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

from benchmarks._common import emit

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "airline.yaml"


def main() -> None:
    """Run, verify, compare."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        outcome = command(folder, "run", str(EXAMPLE), "--json")
        seconds = time.perf_counter() - begin
        verified = command(folder, "models", "verify", "airline@champion", "--json")
    task = outcome["tasks"]["airline"]
    by_role = {(result["role"], result["trial"].split("/")[1]): result for result in task["results"]}
    probe, default = by_role.get(("best", "linear_probe")), by_role.get(("default", task["method"]))
    emit(
        benchmark="demo",
        seconds=seconds,
        lanes_busy=outcome["lanes"],
        method=task["method"],
        macro_f1=task["mean_score"],
        interval=task["interval"],
        accuracy=task["metrics"]["accuracy"],
        majority=task["majority"],
        linear_probe=probe and probe["interval"],
        untuned=default["mean_score"] if default else task["mean_score"],
        champion_is_untuned=default is None,
        verified_rows=verified["rows"],
        largest_difference=verified["largest_difference"],
        reached={
            "under 5 minutes": seconds < 300,
            "macro-F1 at least 0.76": task["mean_score"] >= 0.76,
            "accuracy at least 0.85": task["metrics"]["accuracy"] >= 0.85,
            "beats linear_probe beyond its interval": probe is None or task["mean_score"] > probe["interval"][1],
            "not below its method's default by more than a standard error": default is None
            or task["mean_score"] >= default["mean_score"] - standard_error(task["interval"]),
            "probabilities within 1e-6": verified["ok"],
        },
    )


def standard_error(interval: list[float]) -> float:
    """Of a 95 % interval, taken as normal."""
    return (interval[1] - interval[0]) / (2 * 1.96)


def command(folder: str, *arguments: str) -> Any:
    """Run a command of ours in ``folder`` and read its JSON."""
    program = str(Path(sys.executable).with_name("peft-sweep"))
    environment = {**os.environ, "PEFT_SWEEP_CACHE": f"{folder}/cache"}
    done = subprocess.run([program, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
