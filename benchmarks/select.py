"""Time of ``peft-sweep select`` on a sweep of 500 trials.

    python -m benchmarks.select

The journal is generated, with the events and measurements of a real one. The JSON line has wall seconds of a whole
process: ``seconds``, the median of five, ``slowest_seconds``, and ``target_met``, whether the median is below 2 s.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks._command_line import argument_parser, emit
from orchestrator.common.metric import Metric
from orchestrator.journal.events import Journal
from orchestrator.selection.evidence import Evidence
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Selection
from orchestrator.selection.tied_set import ranks

TRIALS, STEPS, METHODS = 500, (20, 40, 80), ("lora", "adapter", "ia3", "prefix", "linear_probe")
MEASUREMENTS = (
    *("trainable_parameters", "adapter_bytes", "peak_memory_bytes", "seconds_per_step", "train_seconds"),
    *("latency_overhead_1", "latency_overhead_32", "mergeable", "attach_seconds", "evaluation_seconds"),
)
SWEEP = "generated"
REPEATS, MAX_MEDIAN_S = 5, 2.0
OPTIONS = ("--max-size", "1MB", "--max-memory", "12GB", "--prefer", "size", "--json")


def main() -> None:
    """Write a journal, and measure the command on it."""
    argument_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_journal(Path(folder) / "sweeps" / SWEEP / "journal.jsonl")
        seconds = [measure_command(folder) for _ in range(REPEATS)]
    median = statistics.median(seconds)
    emit(
        benchmark="select",
        trials=TRIALS,
        seconds=median,
        slowest_seconds=max(seconds),
        target_met=median < MAX_MEDIAN_S,
    )


def measure_command(folder: str) -> float:
    """Run the command, and return the wall seconds of its process."""
    start = time.perf_counter()
    command = [str(Path(sys.executable).with_name("peft-sweep")), "select", SWEEP, *OPTIONS]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True, env={**os.environ})
    return time.perf_counter() - start


def write_journal(path: Path) -> None:
    """Write a journal of ``TRIALS`` trials and their selection."""
    random = np.random.default_rng(0)
    journal = Journal(path)
    journal.append("sweep", sweep=SWEEP, backbone={"bytes": 2.4e7})
    for number in range(TRIALS):
        key = f"mail/{METHODS[number % len(METHODS)]}/{number // len(METHODS)}"
        params = {"rank": 8, "learning_rate": float(random.random()), "batch_size": 16, "dropout": 0.1}
        journal.append("trial", trial=key, params=params, seed=0)
        for step in STEPS:
            value = float(random.random())
            metrics = {"macro_f1": value, "accuracy": value}
            journal.append(
                "rung", trial=key, step=step, value=value, metrics=metrics, measurements=draw_measurements(random)
            )
        journal.append("end", trial=key, state="complete", reason="")
    journal.append("selection", **draw_selection(random).to_dict())
    journal.append("close", reason="finished", message="")


def draw_measurements(random: np.random.Generator) -> dict[str, float]:
    """Return random measurements of an adapter of up to a megabyte."""
    return {
        name: float(random.random()) * (1e6 if name.endswith(("bytes", "parameters")) else 1.0) for name in MEASUREMENTS
    }


def draw_selection(random: np.random.Generator) -> Selection:
    """Return a selection in which all methods are finalists."""
    count = len(METHODS)
    metric = Metric(name="macro_f1", label="macro-F1")
    means = np.linspace(0.8, 0.81 - 0.01 * count, count)
    evidence = Evidence(means, np.eye(count) * 1e-4, 1e-4, np.full(count, 3), 2000, 2 * count)
    rank = ranks(evidence, metric)
    results = tuple(
        MethodResult(
            method=method,
            trial=f"mail/{method}/1",
            mean_score=float(evidence.means[number]),
            checkpoint_score=float(evidence.means[number]),
            interval=evidence.interval(number, bounds=metric.bounds),
            seed_scores=(float(evidence.means[number]),) * 3,
            validation=0.8,
            measurements=draw_measurements(random),
            tied=rank[number].tied,
        )
        for number, method in enumerate(METHODS)
    )
    return Selection(
        task="mail",
        metric=metric,
        prefer="score",
        rows=2000,
        seeds=3,
        recommended="lora",
        trial="mail/lora/1",
        reason="",
        alternative="",
        tied=tuple(result.method for result in results if result.tied),
        minimum_detectable_difference=rank[0].minimum_detectable_difference,
        finalists=results,
        evidence=evidence.to_dict(),
    )


if __name__ == "__main__":
    main()
