"""Time of a fixed set of trials, against two ways to train them without this project.

    python -m benchmarks.makespan                        # 16 trials of 40 steps
    python -m benchmarks.makespan --trials 16 64         # also start-up time and time per trial
    python -m benchmarks.makespan --startup              # what a sweep waits for until its first lane works
    python -m benchmarks.makespan --agreement            # losses and scores of single trials instead of times

The three sides are:

- ``sweep``: ``peft-sweep run`` with an empty cache: imports, Ray, quantization, the trials, the journal, MLflow. The
  final phase after the trials is not counted.
- ``ray``: Ray's documented pattern, a ``TorchTrainer`` per Tune trial, each with its own backbone.
- ``loop``: one trial after another in one process, with ``transformers.Trainer`` and all cores.

All sides train the same configurations for the same steps on the same rows in the same order, with matmuls in bfloat16,
without early stopping, and score each trial on the same validation rows. A line per side and number of trials:

- ``seconds``: wall seconds from the start of the command to the last trial's score.
- ``process_seconds``: wall seconds to the end of the process; for ``sweep`` this includes the final phase.
- ``macro_f1``: mean validation macro-F1 over a method's trials.

The last line has ``times_as_long``, each side's ``seconds`` over those of ``sweep``, and, for several numbers of
trials, ``line``: start-up and time per trial in wall seconds, the intercept and slope of a straight line. The keys of
``--agreement`` are explained in benchmarks/_trainer_agreement.py, those of ``--startup`` in
benchmarks/_startup_causes.py.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._common import argument_parser, emit, scratch_folder
from benchmarks._fixed_trials import METHODS, Comparison, write_comparison, write_sweep_file
from benchmarks._startup_causes import measure_startup
from orchestrator.journal.events import Journal

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class SideResult:
    """Result of a side.

    Args:
        seconds: wall seconds from the start of the command to the last score.
        process_seconds: wall seconds from the start of the command to the end of its process.
        scores: validation macro-F1 of each trial, by method.
    """

    seconds: float
    process_seconds: float
    scores: Mapping[str, Sequence[float]]


def main() -> None:
    """Run every side in turn, for every number of trials."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--trials",
        type=int,
        nargs="+",
        default=[16],
        help=f"numbers of trials, multiples of {len(METHODS)} (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of every trial (default: %(default)s)")
    parser.add_argument(
        "--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help="sides to run (default: all)"
    )
    parser.add_argument(
        "--agreement",
        action="store_true",
        help="compare losses and scores of a lane with those of transformers.Trainer instead of times",
    )
    parser.add_argument("--startup", action="store_true", help="run a sweep until its first lane works, and no more")
    arguments = parser.parse_args()
    if arguments.startup:
        emit(benchmark="makespan", **startup(arguments.trials[0], arguments.steps))
        return
    if arguments.agreement:
        from benchmarks._trainer_agreement import compare_with_trainer

        compare_with_trainer(arguments.steps)
        return
    seconds: dict[str, dict[int, float]] = defaultdict(dict)
    for trials in arguments.trials:
        for side in arguments.sides:
            result = run_side(side, trials, arguments.steps)
            seconds[side][trials] = result.seconds
            emit(
                benchmark="makespan",
                side=side,
                trials=trials,
                steps=arguments.steps,
                seconds=result.seconds,
                process_seconds=result.process_seconds,
                macro_f1={method: statistics.mean(scores) for method, scores in result.scores.items()},
            )
    emit(
        benchmark="makespan",
        times_as_long=times_as_long(seconds),
        line={side: fit_line(side_seconds) for side, side_seconds in seconds.items()},
    )


def run_side(side: str, trials: int, steps: int) -> SideResult:
    """Run a side in an empty folder with an empty cache.

    Raises:
        RuntimeError: if it did not score all trials.
    """
    with scratch_folder() as folder:
        comparison = write_comparison(folder, trials, steps)
        start_time = time.time()
        last_score_time, scores = SIDES[side](comparison, folder)
        end_time = time.time()
    if (count := sum(map(len, scores.values()))) != trials:
        raise RuntimeError(f"{side} has scored {count} of {trials} trials")
    return SideResult(last_score_time - start_time, end_time - start_time, scores)


def run_sweep(comparison: Comparison, folder: Path) -> tuple[float, Mapping[str, list[float]]]:
    """Run ``peft-sweep run``, and return the time of the last score and the scores, from the journal."""
    program = str(Path(sys.executable).with_name("peft-sweep"))
    _run_command([program, "run", str(write_sweep_file(comparison, folder)), "--json"], folder)
    events = Journal.read(next((folder / "sweeps").glob("makespan-*/journal.jsonl")))
    rungs = [event for event in events if event["event"] == "rung" and event["step"] == comparison.steps]
    scores: dict[str, list[float]] = defaultdict(list)
    for rung in rungs:
        scores[rung["trial"].split("/")[1]].append(rung["value"])
    return max(rung["time"] for rung in rungs), scores


def startup(trials: int, steps: int) -> Mapping[str, Any]:
    """Run the sweep in an empty folder with an empty cache until its first lane works, and return its causes."""
    with scratch_folder() as folder:
        file = write_sweep_file(write_comparison(folder, trials, steps), folder)
        return measure_startup([sys.executable, "-m", "orchestrator.cli", "run", str(file)], folder, _environment())


def baseline_side(module: str) -> Side:
    """Return a side that runs a module, which reads a comparison's file and prints a JSON line per trial."""

    def run(comparison: Comparison, folder: Path) -> tuple[float, Mapping[str, list[float]]]:
        file = comparison.write(folder / "comparison.json")
        output = _run_command([sys.executable, "-m", module, str(file)], REPOSITORY)
        results = [json.loads(line) for line in output.splitlines() if line.startswith('{"trial"')]
        scores: dict[str, list[float]] = defaultdict(list)
        for result in sorted(results, key=lambda result: int(result["trial"])):
            scores[comparison.trials[result["trial"]].method].append(result["score"])
        return max(result["time"] for result in results), scores

    return run


Side = Callable[[Comparison, Path], tuple[float, Mapping[str, list[float]]]]
"""A function that runs a comparison and returns the Unix time of the last score, and the scores by method."""
SIDES: Mapping[str, Side] = {
    "sweep": run_sweep,
    "ray": baseline_side("benchmarks._baseline_tune"),
    "loop": baseline_side("benchmarks._baseline_loop"),
}


def times_as_long(seconds: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """Return each side's seconds over those of the sweep, by number of trials; empty without a sweep."""
    sweep_seconds = seconds.get("sweep", {})
    return {
        side: {trials: duration / sweep_seconds[trials] for trials, duration in side_seconds.items()}
        for side, side_seconds in seconds.items()
        if side != "sweep" and sweep_seconds
    }


def fit_line(seconds: Mapping[int, float]) -> dict[str, float]:
    """Return start-up and seconds per trial, from the smallest and the largest number of trials.

    The result is empty for a single number of trials.
    """
    fewest, most = min(seconds), max(seconds)
    if fewest == most:
        return {}
    slope = (seconds[most] - seconds[fewest]) / (most - fewest)
    return {"startup_seconds": seconds[fewest] - slope * fewest, "seconds_per_trial": slope}


def _run_command(command: list[str], folder: Path) -> str:
    """Run a command and return its output.

    Raises:
        RuntimeError: if it fails, with the end of its error output.
    """
    process = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}:\n{process.stderr[-4000:]}")
    return process.stdout


def _environment() -> dict[str, str]:
    """Return the environment of a side, which sets its number of threads itself, and starts its own Ray."""
    return {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "RAY_ADDRESS")}


if __name__ == "__main__":
    main()
