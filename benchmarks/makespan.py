"""Trials that nobody stops, by this project and by two ways that an expert has without it.

- ``sweep``: ``peft-sweep run`` with an empty cache: imports, Ray, quantizing, the trials, the journal, MLflow. What
  follows the trials is not counted.
- ``ray``: Ray's documented pattern, a ``TorchTrainer`` per Tune trial, each with its own backbone.
- ``loop``: trial after trial in one process, with ``transformers.Trainer`` and all cores.

Rows, their order, configurations and steps are the same, products are in bfloat16, and every trial ends with a score of
the same validation rows. ``seconds`` count from the start of the command to the last trial's score, ``process_seconds``
to the end of the process, which for ``sweep`` comes after a final. With several numbers of trials the last line has
start-up and seconds per trial as well: a straight line's intercept and slope.

    python -m benchmarks.makespan                        # 16 trials of 40 steps
    python -m benchmarks.makespan --trials 16 64
    python -m benchmarks.makespan --agreement            # losses and scores of one trial, not times
"""

from __future__ import annotations

import argparse
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

from benchmarks._common import emit, scratch
from benchmarks._fixed_trials import METHODS, Comparison, comparison, sweep_file
from orchestrator.tracking.journal import Journal

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Measured:
    """One side's run.

    Args:
        seconds: from the command to the last score.
        process_seconds: from the command to the end of its process.
        scores: macro-F1 on validation, by method, a value per trial.
    """

    seconds: float
    process_seconds: float
    scores: Mapping[str, Sequence[float]]


def main() -> None:
    """Run every side in turn, for every number of trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[16], help=f"multiples of {len(METHODS)}")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--agreement", action="store_true", help="compare losses and scores of one trial instead")
    asked = parser.parse_args()
    if asked.agreement:
        from benchmarks._agreement import agreement

        agreement(asked.steps)
        return
    seconds: dict[str, dict[int, float]] = defaultdict(dict)
    for trials in asked.trials:
        for side in asked.sides:
            found = measured(side, trials, asked.steps)
            seconds[side][trials] = found.seconds
            emit(
                benchmark="makespan",
                side=side,
                trials=trials,
                steps=asked.steps,
                seconds=found.seconds,
                process_seconds=found.process_seconds,
                scores={method: statistics.mean(own) for method, own in found.scores.items()},
            )
    emit(benchmark="makespan", ratio=ratios(seconds), line={side: line(own) for side, own in seconds.items()})


def measured(side: str, trials: int, steps: int) -> Measured:
    """One side's run, in an empty folder with an empty cache.

    Raises:
        RuntimeError: if it did not do all trials.
    """
    with scratch() as folder:
        asked = comparison(folder, trials, steps)
        begin = time.time()
        ended, scores = SIDES[side](asked, folder)
        over = time.time()
    if (count := sum(map(len, scores.values()))) != trials:
        raise RuntimeError(f"{side} has scored {count} of {trials} trials")
    return Measured(ended - begin, over - begin, scores)


def by_sweep(asked: Comparison, folder: Path) -> tuple[float, Mapping[str, list[float]]]:
    """``peft-sweep run``; times and scores are the journal's."""
    program = str(Path(sys.executable).with_name("peft-sweep"))
    _output([program, "run", str(sweep_file(asked, folder)), "--json"], folder)
    events = Journal.read(next((folder / "sweeps").glob("makespan-*/journal.jsonl")))
    rungs = [event for event in events if event["event"] == "rung" and event["step"] == asked.steps]
    scores: dict[str, list[float]] = defaultdict(list)
    for rung in rungs:
        scores[rung["trial"].split("/")[1]].append(rung["value"])
    return max(rung["time"] for rung in rungs), scores


def by_baseline(module: str) -> Callable[[Comparison, Path], tuple[float, Mapping[str, list[float]]]]:
    """A module that does a comparison and prints a JSON line per trial."""

    def run(asked: Comparison, folder: Path) -> tuple[float, Mapping[str, list[float]]]:
        file = asked.write(folder / "comparison.json")
        printed = _output([sys.executable, "-m", module, str(file)], REPOSITORY)
        done = [json.loads(line) for line in printed.splitlines() if line.startswith('{"trial"')]
        scores: dict[str, list[float]] = defaultdict(list)
        for one in sorted(done, key=lambda one: int(one["trial"])):
            scores[asked.trials[one["trial"]].method].append(one["score"])
        return max(one["time"] for one in done), scores

    return run


Side = Callable[[Comparison, Path], tuple[float, Mapping[str, list[float]]]]
SIDES: Mapping[str, Side] = {
    "sweep": by_sweep,
    "ray": by_baseline("benchmarks._baseline_tune"),
    "loop": by_baseline("benchmarks._baseline_loop"),
}


def ratios(seconds: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """By side and number of trials: how many times as long as the sweep it took."""
    ours = seconds.get("sweep", {})
    return {
        side: {trials: took / ours[trials] for trials, took in own.items()}
        for side, own in seconds.items()
        if side != "sweep" and ours
    }


def line(seconds: Mapping[int, float]) -> dict[str, float]:
    """Start-up and seconds per trial, through the smallest and the largest number of trials; empty for one alone."""
    fewest, most = min(seconds), max(seconds)
    if fewest == most:
        return {}
    slope = (seconds[most] - seconds[fewest]) / (most - fewest)
    return {"startup_seconds": seconds[fewest] - slope * fewest, "seconds_per_trial": slope}


def _output(command: list[str], folder: Path) -> str:
    """What a command prints; each side sets its threads itself.

    Raises:
        RuntimeError: if it fails, with the end of what it had to say.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "RAY_ADDRESS")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
