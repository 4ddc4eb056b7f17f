"""What earlier sweeps are worth: recorded tables are searched with the best and the worst that the other tables know.

Leave one task out: each table is searched by the Search core with three priors, at a quarter of what training all of it
would cost. ``cold`` has none. ``good`` are the configurations that a warm start takes from the other tables, and
``adversarial`` those that it would take if worse were better. Which method comes first is drawn anew in every repeat,
and the same for the three.

    python -m benchmarks.warm_start
    python -m benchmarks.warm_start --curves FILE... --repeats 20

A line per task and prior, in shares of the table's cost: ``cost_fraction`` is what was spent until the method that
would be named is in the tied set and stays there, ``cost_to_best`` what was spent until a score at the last rung lies
within a point of the table's best. What does not come true within the budget counts as 1. The last line has both as
ratios to ``cold``, of the means over tasks and repeats, with ``good`` to be below 1 and ``adversarial`` at most 1.1,
and their 95 % intervals from resampling the repeats.
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import emit
from benchmarks._verdicts import Tied, judge, tied
from orchestrator.common.trial_types import TrialKey
from orchestrator.search.allocation import Race
from orchestrator.search.budget import SpendingLimits
from orchestrator.search.core import Search
from orchestrator.search.plans import StudyPlan
from orchestrator.simulation.replay import Incumbent, NullJournal, incumbents, plans_of, replay
from orchestrator.simulation.spaces import plain, space_of
from orchestrator.simulation.table import Table
from orchestrator.warm_start.earlier import EarlierTask, EarlierTrial
from orchestrator.warm_start.task_metadata import TaskMetadata
from orchestrator.warm_start.transfer import Source, transfer_configurations

CURVES = Path(__file__).with_name("curves")
PRIORS = ("cold", "good", "adversarial")
POINT = 0.01
Configurations = Mapping[str, tuple[Mapping[str, Any], ...]]
Costs = Mapping[str, list[tuple[float, float]]]
"""By prior: of every repeat on every task, the cost until the right method is named, and until its best is found."""


def main() -> None:
    """Search all tables."""
    asked = _arguments()
    tables = Table.read(asked.curves)
    costs: dict[str, list[tuple[float, float]]] = {prior: [] for prior in PRIORS}
    with ProcessPoolExecutor(asked.processes) as pool:
        for table in tables:
            good = tied(table)
            for prior in PRIORS:
                configurations = configurations_for(table, tables, prior)
                once = functools.partial(one, table, good, configurations, asked.budget, asked.lanes)
                found = list(pool.map(once, range(asked.repeats), chunksize=5))
                costs[prior] += found
                emit(task=table.task, prior=prior, **summary(configurations, found), tied_set=good.methods)
    emit(**compared(costs))


def configurations_for(table: Table, tables: Sequence[Table], prior: str) -> Configurations:
    """By method, what its study tries early, from all tables but its own."""
    if prior == "cold":
        return {}
    others = [_source(other, higher_is_better=prior == "good") for other in tables if other.task != table.task]
    return {
        method: tuple(one.params for one in transfer_configurations(space_of(curves), method, others))
        for method, curves in table.methods.items()
    }


def one(
    table: Table, good: Tied, configurations: Configurations, budget: float, lanes: int, seed: int
) -> tuple[float, float]:
    """One repeat: the cost until the right method is named for good, and until its best is found."""
    policy = functools.partial(_search, configurations)
    named = incumbents(replay(policy, table, seed, budget * table.cost, lanes=lanes))
    return judge(table, named, good).cost, _cost_to_best(table, named)


def summary(configurations: Configurations, found: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """What the repeats have in common."""
    named, best = zip(*found, strict=True)
    return {
        "cost_fraction": statistics.fmean(named),
        "cost_to_best": statistics.fmean(best),
        "never_named": statistics.fmean(cost == 1.0 for cost in named),
        "never_found": statistics.fmean(cost == 1.0 for cost in best),
        "configurations": sum(map(len, configurations.values())),
        "repeats": len(found),
    }


def compared(costs: Costs) -> dict[str, Any]:
    """Each prior's costs over those without one, and where resampled repeats put 95 % of these ratios."""
    measured = {prior: np.array(found) for prior, found in costs.items()}
    drawn = np.random.default_rng(0).integers(len(measured["cold"]), size=(1000, len(measured["cold"])))
    told: dict[str, Any] = {}
    for prior in PRIORS[1:]:
        ratio = measured[prior].mean(axis=0) / measured["cold"].mean(axis=0)
        # the same repeats of both, since they have the same luck
        ratios = measured[prior][drawn].mean(axis=1) / measured["cold"][drawn].mean(axis=1)
        low, high = np.quantile(ratios, [0.025, 0.975], axis=0)
        for place, what in enumerate(("named", "best")):
            told[f"{prior}_{what}"] = [round(float(value[place]), 3) for value in (ratio, low, high)]
    return told


def _cost_to_best(table: Table, named: Sequence[Incumbent]) -> float:
    wanted = max(table.best(method) for method in table.methods) - POINT
    found = (one.cost / table.cost for one in named if one.step == table.rungs[-1] and one.score >= wanted)
    return next(found, 1.0)


def _search(
    configurations: Configurations, table: Table, seed: int, budget: float, clock: Callable[[], float]
) -> Search:
    plans = [_with_prior(plan, configurations) for plan in plans_of(table)]
    random.Random(seed).shuffle(plans)
    return Search(
        plans,
        table.rungs,
        storage_path=None,
        journal=NullJournal(),
        allocation=Race(),
        budget=SpendingLimits(lane_seconds=budget),
        clock=clock,
        seed=seed,
    )


def _with_prior(plan: StudyPlan, configurations: Configurations) -> StudyPlan:
    return replace(plan, prior=configurations.get(TrialKey(plan.study, 0).method, ()))


def _source(table: Table, *, higher_is_better: bool) -> Source:
    """A table as an earlier sweep that trained everything to the end."""
    trials = [
        EarlierTrial(
            trial=f"{table.task}/{method}/{curve.config_id}",
            method=method,
            params={name: plain(value) for name, value in curve.params.items()},
            state="complete",
            value=curve.scores[table.rungs[-1]],
        )
        for method, curves in table.methods.items()
        for curve in curves
    ]
    name, task_metadata = table.task, TaskMetadata()
    return Source(
        EarlierTask(
            sweep=name, task=name, task_metadata=task_metadata, higher_is_better=higher_is_better, read=lambda: trials
        ),
        1.0,
        trials,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", nargs="+", type=Path, default=sorted(CURVES.glob("*.parquet")), metavar="FILE")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--budget", type=float, default=0.25, help="share of the table's cost")
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    if len(asked.curves) < 2:
        parser.error(f"needs the tables of two tasks or more in {CURVES.name}; record them, or name some with --curves")
    return asked


if __name__ == "__main__":
    main()
