"""Effect of warm starts on the cost of a search, with good and with adversarial configurations from earlier tasks.

    python -m benchmarks.warm_start
    python -m benchmarks.warm_start --curves FILE... --repeats 20

Replays recorded tables of learning curves, leaving one task out: the search core searches each table with three priors,
at a budget of a quarter of the cost of the whole table. ``cold`` has no prior; ``good`` has the configurations that a
warm start takes from the other tables; ``adversarial`` has those that it would take if lower scores were better. Every
repeat shuffles the order of the methods, in the same way for the three priors.

A line per task and prior has means over the repeats, as fractions of the cost of the whole table:

- ``cost_fraction``: cost until the best method so far is in the tied set and remains there.
- ``cost_to_best``: cost until a score at the last rung is at most 0.01 below the table's best.

A repeat in which that does not happen within the budget counts as 1; ``never_named`` and ``never_found`` are the
fractions of such repeats. ``configurations`` is the number of configurations in the prior. The last line has the two
costs of ``good`` and ``adversarial`` over those of ``cold``, as means over tasks and repeats (``..._named`` for
``cost_fraction``, ``..._best`` for ``cost_to_best``): ratio, lower and upper end of its 95 % interval from resampling
the repeats. The targets are below 1 for ``good`` and at most 1.1 for ``adversarial``.
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

from benchmarks._command_line import argument_parser, emit
from benchmarks._verdicts import TiedSet, find_tied_set, judge
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
MAX_SCORE_DIFFERENCE = 0.01
Configurations = Mapping[str, tuple[Mapping[str, Any], ...]]
Costs = Mapping[str, list[tuple[float, float]]]
"""By prior, for every repeat on every task: the cost until a tied method is named, and until the best is found."""


def main() -> None:
    """Search all tables with all priors."""
    arguments = _parse_arguments()
    tables = Table.read(arguments.curves)
    costs: dict[str, list[tuple[float, float]]] = {prior: [] for prior in PRIORS}
    with ProcessPoolExecutor(arguments.processes) as pool:
        for table in tables:
            tied_set = find_tied_set(table)
            for prior in PRIORS:
                configurations = configurations_for(table, tables, prior)
                search = functools.partial(
                    measure_costs, table, tied_set, configurations, arguments.budget, arguments.lanes
                )
                repeats = list(pool.map(search, range(arguments.repeats), chunksize=5))
                costs[prior] += repeats
                emit(task=table.task, prior=prior, **summarize(configurations, repeats), tied_set=tied_set.methods)
    emit(**compare_with_cold(costs))


def configurations_for(table: Table, tables: Sequence[Table], prior: str) -> Configurations:
    """Return the configurations that each method's study tries early, from the other tables."""
    if prior == "cold":
        return {}
    sources = [_source(source, higher_is_better=prior == "good") for source in tables if source.task != table.task]
    return {
        method: tuple(trial.params for trial in transfer_configurations(space_of(curves), method, sources))
        for method, curves in table.methods.items()
    }


def measure_costs(
    table: Table, tied_set: TiedSet, configurations: Configurations, budget: float, lanes: int, seed: int
) -> tuple[float, float]:
    """Search a table once, and return the cost until a tied method is named, and until the best is found."""
    policy = functools.partial(_search, configurations)
    changes = incumbents(replay(policy, table, seed, budget * table.cost, lanes=lanes))
    return judge(table, changes, tied_set).cost, _cost_to_best(table, changes)


def summarize(configurations: Configurations, repeats: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the fields of a task's and prior's line."""
    naming_costs, best_costs = zip(*repeats, strict=True)
    return {
        "cost_fraction": statistics.fmean(naming_costs),
        "cost_to_best": statistics.fmean(best_costs),
        "never_named": statistics.fmean(cost == 1.0 for cost in naming_costs),
        "never_found": statistics.fmean(cost == 1.0 for cost in best_costs),
        "configurations": sum(map(len, configurations.values())),
        "repeats": len(repeats),
    }


def compare_with_cold(costs: Costs) -> dict[str, Any]:
    """Return the ratio of each prior's costs to those of ``cold``, with its 95 % interval from resampled repeats."""
    arrays = {prior: np.array(repeats) for prior, repeats in costs.items()}
    samples = np.random.default_rng(0).integers(len(arrays["cold"]), size=(1000, len(arrays["cold"])))
    fields: dict[str, Any] = {}
    for prior in PRIORS[1:]:
        ratio = arrays[prior].mean(axis=0) / arrays["cold"].mean(axis=0)
        # Both means are of the same repeats: repeats of a seed are paired, since they shuffle the methods alike.
        ratios = arrays[prior][samples].mean(axis=1) / arrays["cold"][samples].mean(axis=1)
        low, high = np.quantile(ratios, [0.025, 0.975], axis=0)
        for column, name in enumerate(("named", "best")):
            fields[f"{prior}_{name}"] = [round(float(value[column]), 3) for value in (ratio, low, high)]
    return fields


def _cost_to_best(table: Table, changes: Sequence[Incumbent]) -> float:
    least_score = max(table.best(method) for method in table.methods) - MAX_SCORE_DIFFERENCE
    costs = (
        incumbent.cost / table.cost
        for incumbent in changes
        if incumbent.step == table.rungs[-1] and incumbent.score >= least_score
    )
    return next(costs, 1.0)


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
    """Return a table as an earlier sweep that trained every trial to the last rung."""
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


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--curves",
        nargs="+",
        type=Path,
        default=sorted(CURVES.glob("*.parquet")),
        metavar="FILE",
        help="tables of at least two tasks (default: benchmarks/curves)",
    )
    parser.add_argument("--repeats", type=int, default=100, help="searches per table and prior (default: %(default)s)")
    parser.add_argument(
        "--budget", type=float, default=0.25, help="budget as a fraction of the table's cost (default: %(default)s)"
    )
    parser.add_argument("--lanes", type=int, default=2, help="simulated lanes (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, default=2, help="processes that replay at the same time (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if len(arguments.curves) < 2:
        parser.error(
            f"--curves: {len(arguments.curves)} tables; name those of at least two tasks, "
            "or record them with python -m benchmarks.record_curves"
        )
    return arguments


if __name__ == "__main__":
    main()
