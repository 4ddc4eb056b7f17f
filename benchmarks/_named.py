"""What ``benchmarks.selection --named`` measures: the sets of methods that sweeps name, and their probabilities."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from benchmarks._command_line import emit
from benchmarks._verdicts import wilson_interval
from orchestrator.search.allocation import Allocation, Race, RoundRobin
from orchestrator.selection.tuning_gain import COUNTS, TuningGain
from orchestrator.simulation.table import Table
from orchestrator.simulation.tuning_replays import Named, Searched, name_methods, search_table

BUDGETS = (2, 4, 8)
"""Trials per method of the sweeps that are judged."""
BINS, FEWEST = 10, 50
"""Bins of the calibration, and the probabilities that one needs for a target."""
TARGET_RATE, TARGET_ERROR = 0.95, 0.05

RACE = "race"
RULES: Mapping[str, tuple[Allocation, bool]] = {
    RACE: (Race(), True),
    "round robin": (RoundRobin(), True),
    "round robin, no early stopping": (RoundRobin(), False),
}
"""How the searches that gains are learned from allot trials, and whether they stop some early. The first is judged."""

Searches = Mapping[tuple[str, str, int], Sequence[Searched]]
"""Searches by task, rule and trials per method."""


def search_tables(tables: Iterable[Table], repeats: int, pool: Executor) -> Searches:
    """Search every table many times, by every rule and with every number of trials per method."""
    pending = {
        (table.task, name, trials): [
            pool.submit(search_table, table, rule, trials, seed, early_stopping=stops) for seed in range(repeats)
        ]
        for table in tables
        for name, (rule, stops) in RULES.items()
        for trials in COUNTS
    }
    return {key: [future.result() for future in futures] for key, futures in pending.items()}


def learn(searches: Searches, *, without: str = "") -> TuningGain:
    """Return the gains of all searches but those of one task."""
    return TuningGain.learn(
        gain for (task, *_), some in searches.items() if task != without for search in some for gain in search.gains()
    )


def name_left_out(searches: Searches, task: str, trials: int) -> list[Named]:
    """Return what sweeps of a task would say, with gains that were learned from the other tasks."""
    gain = learn(searches, without=task)
    return [name_methods(search, gain, seed) for seed, search in enumerate(searches[task, RACE, trials])]


def named_shares(searches: Searches) -> dict[str, list[float]]:
    """Return quartiles of the share of the methods that a sweep names, by trials per method."""
    tables = {task: some[0].table for (task, *_), some in searches.items()}
    shares = {
        trials: [
            len(named.methods) / len(table.methods)
            for task, table in tables.items()
            for named in name_left_out(searches, task, trials)
        ]
        for trials in COUNTS
    }
    return {str(trials): np.quantile(of, (0.25, 0.5, 0.75)).round(3).tolist() for trials, of in shares.items()}


def print_named(tables: Sequence[Table], repeats: int, pool: Executor) -> None:
    """Print a line per task and budget, and the calibration over all of them."""
    searches, everything = search_tables(tables, repeats, pool), []
    for table in tables:
        for trials in BUDGETS:
            named = name_left_out(searches, table.task, trials)
            hits = sum(sweep.holds_best for sweep in named)
            everything += named
            emit(
                task=table.task,
                trials_per_method=trials,
                named_set_rate=hits / len(named),
                interval=wilson_interval(hits, len(named)),
                set_size=statistics.fmean(len(sweep.methods) for sweep in named),
                methods=len(table.methods),
                brier=statistics.fmean(sweep.brier for sweep in named),
                repeats=len(named),
                target_met=hits / len(named) >= TARGET_RATE,
            )
    bins = calibration(everything)
    judged = [entry for entry in bins if entry["count"] >= FEWEST]
    worst = max((abs(entry["predicted"] - entry["observed"]) for entry in judged), default=None)
    emit(calibration=bins, largest_error=worst, target_met=worst is not None and worst <= TARGET_ERROR)


def calibration(named: Iterable[Named]) -> list[dict[str, Any]]:
    """Return mean probability and frequency of being the best, in ten equal bins of the probability."""
    pairs = [(value, name in sweep.best) for sweep in named for name, value in sweep.probability.items()]
    bins = []
    for number in range(BINS):
        inside = [pair for pair in pairs if min(int(pair[0] * BINS), BINS - 1) == number]
        means: list[float | None] = [statistics.fmean(column) for column in zip(*inside, strict=True)] or [None, None]
        bins.append(
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "count": len(inside),
                "predicted": means[0],
                "observed": means[1],
            }
        )
    return bins
