"""What earlier sweeps are worth: recorded tables are searched with the best and the worst that the other tables know.

Leave one task out: each table is searched by the Search core with three priors, at a quarter of what training all of it
would cost. ``cold`` has none. ``good`` are the configurations that a warm start takes from the other tables, and
``adversarial`` those that it would take if worse were better. A repeat costs what was spent until the method that would
be named is in the tied set and stays there, and the whole table's cost if that does not come true within the budget.

    python -m benchmarks.warm_start
    python -m benchmarks.warm_start --curves FILE... --repeats 20

One line per task and prior, ``cost_fraction`` in shares of the whole table's cost; the last line has the ratios to
``cold``, means over all tasks and repeats: ``good`` is to be below 1, ``adversarial`` at most 1.1.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import multiprocessing
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.search.allocation import Race
from orchestrator.search.budget import Limits
from orchestrator.search.core import Search
from orchestrator.search.plans import StudyPlan
from orchestrator.simulation.replay import Naming, Unwritten, namings, plans_of, replay
from orchestrator.simulation.spaces import plain, space_of
from orchestrator.simulation.table import Table
from orchestrator.trials import TrialKey
from orchestrator.warm_start.choose import Source, choose
from orchestrator.warm_start.earlier import Earlier, Tried
from orchestrator.warm_start.portrait import Portrait

PRIORS = ("cold", "good", "adversarial")
CURVES = Path(__file__).with_name("curves")
Configurations = Mapping[str, tuple[Mapping[str, Any], ...]]


def main() -> None:
    """Measure all tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", nargs="+", type=Path, default=sorted(CURVES.glob("*.parquet")))
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.25, help="of the table's cost that may be spent")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    tables = Table.read(asked.curves)
    costs: dict[str, list[float]] = {prior: [] for prior in PRIORS}
    with multiprocessing.Pool(asked.processes) as pool:
        for table in tables:
            for prior in PRIORS:
                configurations = prior_for(table, tables, prior)
                once = functools.partial(cost_fraction, table, configurations, asked.share)
                found = pool.map(once, range(asked.repeats))
                costs[prior] += found
                _tell(table.task, prior, configurations, found)
    cold = statistics.fmean(costs["cold"])
    _emit(**{f"{prior}_ratio": statistics.fmean(costs[prior]) / cold for prior in PRIORS[1:]}, cold=cold)


def prior_for(table: Table, tables: Sequence[Table], prior: str) -> Configurations:
    """By method, the configurations of the other tables that its study tries early."""
    if prior == "cold":
        return {}
    others = [_source(other, higher_is_better=prior == "good") for other in tables if other.task != table.task]
    return {
        method: tuple(one.params for one in choose(space_of(curves), method, others))
        for method, curves in table.methods.items()
    }


def cost_fraction(table: Table, configurations: Configurations, share: float, seed: int) -> float:
    """What it costs until the named method is in the tied set for good, in shares of the whole table's cost."""
    results = replay(functools.partial(_search, configurations), table, seed, share * table.cost)
    found, tied = namings(results), tied_set(table)
    return _settled(found, tied) / table.cost if found and found[-1].method in tied else 1.0


def tied_set(table: Table, rows: int = 768) -> set[str]:
    """The methods whose best score cannot be told from the best of all, and of these the nearest half of all methods.

    Args:
        table: an exhaustive search.
        rows: that were scored; the standard error is that of a share of so many.
    """
    ordered = sorted(table.methods, key=table.best, reverse=True)
    best = table.best(ordered[0])
    margin = 1.645 * math.sqrt(2 * best * (1 - best) / rows)
    return {method for method in ordered[: max(1, len(ordered) // 2)] if best - table.best(method) <= margin}


def _settled(found: Sequence[Naming], tied: set[str]) -> float:
    """From which cost on the named method was always in the tied set."""
    cost = found[-1].cost
    for naming in reversed(found):
        if naming.method not in tied:
            break
        cost = naming.cost
    return cost


def _search(
    configurations: Configurations, table: Table, seed: int, budget: float, clock: Callable[[], float]
) -> Search:
    plans = [_with_prior(plan, configurations) for plan in plans_of(table)]
    random.Random(seed).shuffle(plans)  # whose turn comes first is luck, and the same with every prior
    return Search(
        plans,
        table.rungs,
        storage_path=None,
        journal=Unwritten(),
        allocation=Race(),
        budget=Limits(lane_seconds=budget),
        clock=clock,
        seed=seed,
    )


def _with_prior(plan: StudyPlan, configurations: Configurations) -> StudyPlan:
    return dataclasses.replace(plan, prior=configurations.get(TrialKey(plan.study, 0).method, ()))


def _source(table: Table, *, higher_is_better: bool) -> Source:
    """A table as an earlier sweep that trained everything to the end."""
    trials = [
        Tried(
            trial=f"{table.task}/{method}/{curve.config_id}",
            method=method,
            params={name: plain(value) for name, value in curve.params.items()},
            state="complete",
            value=curve.scores[table.rungs[-1]],
        )
        for method, curves in table.methods.items()
        for curve in curves
    ]
    earlier = Earlier(
        sweep=table.task, task=table.task, portrait=Portrait(), higher_is_better=higher_is_better, read=lambda: trials
    )
    return Source(earlier, 1.0, trials)


def _tell(task: str, prior: str, configurations: Configurations, found: Sequence[float]) -> None:
    _emit(
        task=task,
        prior=prior,
        repeats=len(found),
        configurations=sum(map(len, configurations.values())),
        cost_fraction=statistics.fmean(found),
        cost_error=statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None,
        never=sum(one == 1.0 for one in found) / len(found),
    )


def _emit(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
