"""How often and at what cost search policies find one of the best methods, on recorded tables of learning curves.

    python -m benchmarks.selection                                  # the tables in benchmarks/curves
    python -m benchmarks.selection --curves mine.parquet --policies race tpe_asha
    python -m benchmarks.selection --shuffled                       # sweeps in which nothing can be learned
    python -m benchmarks.selection --named                          # the sets of methods that sweeps name

Every policy searches every table many times, on simulated lanes, until it has spent a fraction of the cost of the whole
table, the lane-seconds of training all of its trials. It then names the method with the best score at the last rung.
The search spaces are the ranges in the table; a proposed configuration gets the curve of the nearest one of its method
that this replay has not used yet, for all policies alike.

The tied set of a table consists of the methods whose best score is at most 1.645 standard errors of a difference below
the best of all, but of no more than the better half of the methods; ``capped`` is true if that excluded methods. A line
per task and policy:

- ``tied_set_rate``: fraction of the repeats that name a method of the tied set; ``interval`` is its 95 % interval,
  ``guess`` the rate of naming a random method.
- ``regret``: mean difference between the table's best score and the named method's score, in units of the score;
  ``regrets``: the same at each budget.
- ``cost_fraction``: mean cost until the best method so far is in the tied set and remains there, as a fraction of the
  cost of the whole table; a repeat in which that does not happen counts as 1.

The last line has ``ratio``, the cost fractions of ``race`` over those of ``tpe_asha``, summed over the tasks. The task
``negation`` was not used to tune the policies; its ratio is apart, as ``held_out_ratio``.

With ``--named``, sweeps of 2, 4 and 8 trials per method by ``race`` are judged instead, with tuning gains that were
learned from the other tasks (see ``orchestrator.selection.tuning_gain``). Scores are taken as exact, so that the tuning
gain is judged alone; ``benchmarks.selection_calibration`` judges what rows and seeds add. A line per task and budget:

- ``named_set_rate``: fraction of the sweeps whose named set holds the best method of the whole table; ``interval`` is
  its 95 % interval.
- ``set_size``: mean size of that set, of ``methods``.
- ``brier``: mean squared error of the methods' probabilities to be the best of the whole table.

The last line has the ``calibration`` of the probabilities over all of these sweeps, in ten equal bins, and
``largest_error``, the largest distance of mean probability and frequency in a bin with 50 or more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._command_line import argument_parser, emit
from benchmarks._named import print_named
from benchmarks._policies import POLICIES
from benchmarks._verdicts import TiedSet, Verdict, find_tied_set, judge, wilson_interval
from orchestrator.common.errors import InputError
from orchestrator.simulation.replay import incumbents, replay
from orchestrator.simulation.shuffled_sweeps import named_share
from orchestrator.simulation.table import COLUMNS, Table

CURVES = Path(__file__).with_name("curves")
HELD_OUT = "negation"
POLICY, BASELINE = "race", "tpe_asha"


def main() -> None:
    """Replay every table with every policy."""
    arguments = _parse_arguments()
    if arguments.shuffled:
        share = named_share(arguments.shuffled)
        emit(
            benchmark="selection",
            labels="shuffled",
            sweeps=arguments.shuffled,
            named_share=share,
            target_met=share <= 0.05,
        )
        return
    try:
        tables = Table.read(arguments.curves)
        tied_sets = {table.task: find_tied_set(table, arguments.standard_error) for table in tables}
    except InputError as error:
        print(*error.lines(), sep="\n", file=sys.stderr)
        raise SystemExit(2) from None
    costs: dict[tuple[str, str], float] = {}
    with ProcessPoolExecutor(arguments.processes) as pool:
        if arguments.named:
            print_named(tables, arguments.repeats, pool)
            return
        for table in tables:
            tied_set = tied_sets[table.task]
            for policy in arguments.policies:
                search = partial(judge_repeat, policy, table, tied_set, arguments.budgets, arguments.lanes)
                repeats = list(pool.map(search, range(arguments.repeats), chunksize=5))
                summary = summarize(repeats, arguments.budgets)
                costs[table.task, policy] = summary["cost_fraction"]
                emit(task=table.task, policy=policy, **summary, **describe(table, tied_set))
    emit(**compare_costs(costs, [table.task for table in tables]))


def judge_repeat(
    policy: str, table: Table, tied_set: TiedSet, budgets: Sequence[float], lanes: int, seed: int
) -> list[Verdict]:
    """Search a table once per budget, and return the verdict at each."""
    return [
        judge(table, incumbents(replay(POLICIES[policy], table, seed, share * table.cost, lanes=lanes)), tied_set)
        for share in budgets
    ]


def summarize(repeats: Sequence[Sequence[Verdict]], budgets: Sequence[float]) -> dict[str, Any]:
    """Return the means over the repeats, at the first budget except for the regrets.

    Args:
        repeats: verdicts of every repeat, one per budget.
        budgets: budgets as fractions of the table's cost.
    """
    first = [verdicts[0] for verdicts in repeats]
    hits = sum(verdict.in_tied_set for verdict in first)
    regrets = [statistics.fmean(verdicts[index].regret for verdicts in repeats) for index in range(len(budgets))]
    return {
        "tied_set_rate": hits / len(first),
        "regret": regrets[0],
        "cost_fraction": statistics.fmean(verdict.cost for verdict in first),
        "interval": wilson_interval(hits, len(first)),
        "regrets": dict(zip(map(str, budgets), regrets, strict=True)),
        "budget": budgets[0],
        "repeats": len(first),
    }


def describe(table: Table, tied_set: TiedSet) -> dict[str, Any]:
    """Return the fields of a table, which are the same for every policy."""
    return {
        "tied_set": tied_set.methods,
        "methods": len(table.methods),
        "guess": len(tied_set.methods) / len(table.methods),
        "capped": tied_set.capped,
        "held_out": table.task == HELD_OUT,
    }


def compare_costs(costs: dict[tuple[str, str], float], tasks: Sequence[str]) -> dict[str, Any]:
    """Return the ratio of the policy's cost to the baseline's, with the held-out task apart.

    Args:
        costs: mean cost fraction, by task and policy.
        tasks: names of the tasks.
    """
    tuning_tasks = [task for task in tasks if task != HELD_OUT] or list(tasks)
    return {
        "ratio": _ratio(costs, tuning_tasks),
        "tasks": tuning_tasks,
        "held_out_ratio": _ratio(costs, [HELD_OUT]) if HELD_OUT in tasks else None,
        "ratios": {task: _ratio(costs, [task]) for task in tasks},
        "of": POLICY,
        "to": BASELINE,
    }


def _ratio(costs: dict[tuple[str, str], float], tasks: Sequence[str]) -> float | None:
    if not all((task, policy) in costs for task in tasks for policy in (POLICY, BASELINE)):
        return None
    return sum(costs[task, POLICY] for task in tasks) / sum(costs[task, BASELINE] for task in tasks)


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--curves",
        nargs="+",
        type=Path,
        default=sorted(CURVES.glob("*.parquet")),
        metavar="FILE",
        help=f"tables with the columns {', '.join(COLUMNS)} (default: benchmarks/curves)",
    )
    parser.add_argument(
        "--shuffled",
        nargs="?",
        type=int,
        const=50,
        metavar="SWEEPS",
        help="instead, how many of so many simulated sweeps on shuffled labels name a method better than the baselines "
        "(default: %(const)s)",
    )
    parser.add_argument(
        "--named", action="store_true", help="instead, judge the sets of methods that sweeps name; two tables or more"
    )
    parser.add_argument("--repeats", type=int, default=100, help="searches per table and policy (default: %(default)s)")
    parser.add_argument(
        "--policies",
        nargs="+",
        choices=POLICIES,
        default=list(POLICIES),
        metavar="POLICY",
        help=f"policies to replay, of {', '.join(POLICIES)} (default: all)",
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=float,
        default=[0.25],
        metavar="FRACTION",
        help="budgets as fractions of the table's cost; all figures are at the first, regrets at each "
        "(default: %(default)s)",
    )
    parser.add_argument("--lanes", type=int, default=2, help="simulated lanes (default: %(default)s)")
    parser.add_argument(
        "--standard-error",
        type=float,
        metavar="ERROR",
        help="standard error of a score, for the tied set (default: the table's, or that of a proportion)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count(),
        help="processes that replay at the same time (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if not arguments.curves:
        parser.error("--curves: benchmarks/curves has no tables; record them with python -m benchmarks.record_curves")
    if arguments.named and len(arguments.curves) < 2:
        parser.error("--named: the gains of a task are learned from others; give --curves two tables or more")
    if arguments.repeats < 1 or min(arguments.budgets) <= 0 or arguments.lanes < 1:
        parser.error("--repeats, --lanes and --budgets must be above 0")
    return arguments


if __name__ == "__main__":
    main()
