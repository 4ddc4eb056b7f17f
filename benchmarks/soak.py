"""Growth of memory, handles and processes over many short trials on two lanes.

    python -m benchmarks.soak --trials 1000

Runs one real sweep of a tiny encoder, whose trials take a few steps each, and measures all of its processes every few
seconds: proportional set size (``/proc/PID/smaps_rollup``, Linux only), open file descriptors, and their number.

A line for each kind of process and for ``all`` has the medians among the samples just after the first 100 trials and
among the last ones, each over a tenth of all trials, and ``growth`` from the one to the other as a fraction. The last
line says how many trials ``ended`` and how, and ``held``: whether nothing of ``all`` grew by more than 2 %. If not, the
exit code is 1. With ``--minutes``, the sweep is stopped after that time, and what it came to is measured.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks._chaos_sweep import ChaosSweep
from benchmarks._command_line import argument_parser, emit
from benchmarks._processes import kind_of
from benchmarks.sweep_memory import resident_bytes
from orchestrator.journal.folders import STOP

INTERVAL_S = 2.0
SETTLED_AFTER = 100
MOST_GROWTH = 0.02
MEASURES = ("pss_bytes", "handles", "processes")


@dataclass(frozen=True)
class Sample:
    """A measurement of all processes of a sweep.

    Args:
        trials: trials that had ended by then.
        sums: sum of each measure over the processes of each kind, and over all.
    """

    trials: int
    sums: dict[str, dict[str, float]]


def main() -> None:
    """Run the sweep and print the growth."""
    parser = argument_parser(__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="trials of the sweep (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="minutes after which the sweep is stopped")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, _sweep(Path(folder), arguments.trials) as sweep:
        begin = time.monotonic()
        sweep.start()
        samples = _samples(sweep, begin + 60 * arguments.minutes)
        states = Counter(event["state"] for event in sweep.events() if event["event"] == "end")
        seconds = time.monotonic() - begin
    growths = {kind: growth(samples, kind) for kind in ["all", *sorted({k for s in samples for k in s.sums} - {"all"})]}
    for kind, grown in growths.items():
        emit(benchmark="soak", kind=kind, **grown)
    held = bool(growths["all"]) and all(of["growth"] <= MOST_GROWTH for of in growths["all"].values())
    emit(benchmark="soak", ended=dict(states), seconds=seconds, samples=len(samples), held=held)
    sys.exit(not held)


def _sweep(folder: Path, trials: int) -> ChaosSweep:
    return ChaosSweep(
        folder,
        methods=["lora", "linear_probe"],
        plugins=[],
        budget={"trials": trials},
        lanes={"min": 2, "max": 2, "pack": 2},
        training={"max_steps": 4, "max_length": 16},
        selection={"seeds": 1},
    )


def _samples(sweep: ChaosSweep, end: float) -> list[Sample]:
    """Measure the sweep until it has searched, since the final has other processes, or until it is stopped."""
    samples: list[Sample] = []
    while not sweep.has_ended():
        time.sleep(INTERVAL_S)
        counts = Counter(event["event"] for event in sweep.events())
        if counts["searched"] or time.monotonic() > end:
            if not counts["searched"] and sweep.sweep:
                (sweep.sweep / STOP).touch()
            sweep.wait()
            break
        samples.append(Sample(counts["end"], _measure(sweep.tree())))
    return samples


def _measure(processes: Sequence[psutil.Process]) -> dict[str, dict[str, float]]:
    sums: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(MEASURES, 0.0))
    for process in processes:
        try:
            kind, handles = kind_of(process), len(os.listdir(f"/proc/{process.pid}/fd"))
        except (OSError, psutil.Error):  # it has ended meanwhile
            continue
        for name in ("all", kind):
            sums[name]["pss_bytes"] += resident_bytes(process.pid)["pss"]
            sums[name]["handles"] += handles
            sums[name]["processes"] += 1
    return dict(sums)


def growth(samples: Sequence[Sample], kind: str) -> dict[str, dict[str, float]]:
    """Return ``first`` and ``last`` of each measure, and its ``growth`` as a fraction.

    Args:
        samples: samples in the order of time.
        kind: kind of processes; counted as 0 in samples without one.
    """
    most = samples[-1].trials if samples else 0
    window = max(1, most // 10)
    first = [sample for sample in samples if SETTLED_AFTER <= sample.trials <= SETTLED_AFTER + window]
    last = [sample for sample in samples if sample.trials > most - window]
    if not first or most <= SETTLED_AFTER + window:
        return {}
    found = {}
    for measure in MEASURES:
        before, after = (
            statistics.median(sample.sums.get(kind, {}).get(measure, 0.0) for sample in part) for part in (first, last)
        )
        found[measure] = {"first": before, "last": after, "growth": after / before - 1 if before else 0.0}
    return found


if __name__ == "__main__":
    main()
