"""Which policy names the right method, and after which cost: recorded tables of learning curves, replayed.

Every policy searches every table many times, on simulated lanes, until it has spent a share of what training the whole
table costs. It would then name the method of the best score at the last rung. Where a table has no row for what is
proposed, the nearest row of that method answers that this replay has not used yet, for every policy alike; the search
spaces are those that the table shows.

    python -m benchmarks.selection                                  # the tables in benchmarks/curves
    python -m benchmarks.selection --curves mine.parquet --policies race tpe_asha

A line per task and policy: ``tied_set_rate`` is the share of the repeats that named a method of the tied set, with its
95 % interval beside it and the chance of a random guess; ``regret`` is the mean distance to the table's best score;
``cost_fraction`` the mean cost until the named method was in the tied set and stayed there, as a fraction of the cost
of the whole table, where a repeat that never came there counts as 1. The tied set are the methods whose best score is
no further from the best of all than 1.645 standard errors of a difference, and at most the better half of the methods
(``capped`` says if that cut some off). The last line compares the costs of ``race`` and ``tpe_asha``; the task
``negation`` was kept out of all tuning and stands apart in it.
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

from benchmarks._lines import emit
from benchmarks._policies import POLICIES
from benchmarks._verdicts import Tied, Verdict, interval, judge, tied
from orchestrator.common.errors import InputError
from orchestrator.simulation.replay import incumbents, replay
from orchestrator.simulation.table import COLUMNS, Table

CURVES = Path(__file__).with_name("curves")
HELD_OUT = "negation"
OURS, THEIRS = "race", "tpe_asha"


def main() -> None:
    """Replay, and print what came of it."""
    asked = _arguments()
    try:
        tables = Table.read(asked.curves)
        ties = {table.task: tied(table, asked.standard_error) for table in tables}
    except InputError as error:
        print(*error.lines(), sep="\n", file=sys.stderr)
        raise SystemExit(2) from None
    costs: dict[tuple[str, str], float] = {}
    with ProcessPoolExecutor(asked.processes) as pool:
        for table in tables:
            good = ties[table.task]
            for policy in asked.policies:
                once = partial(one, policy, table, good, asked.budgets, asked.lanes)
                repeats = list(pool.map(once, range(asked.repeats), chunksize=5))
                line = summary(repeats, asked.budgets)
                costs[table.task, policy] = line["cost_fraction"]
                emit(task=table.task, policy=policy, **line, **about(table, good))
    emit(**compared(costs, [table.task for table in tables]))


def one(policy: str, table: Table, good: Tied, budgets: Sequence[float], lanes: int, seed: int) -> list[Verdict]:
    """The verdicts on one repeat, per budget."""
    return [judge(table, incumbents(replay(POLICIES[policy], table, seed, share * table.cost, lanes=lanes)), good)
            for share in budgets]  # fmt: skip


def summary(repeats: Sequence[Sequence[Verdict]], budgets: Sequence[float]) -> dict[str, Any]:
    """What the repeats have in common. The first budget is the one that counts."""
    first = [verdicts[0] for verdicts in repeats]
    hits = sum(verdict.in_tied_set for verdict in first)
    regrets = [statistics.fmean(verdicts[place].regret for verdicts in repeats) for place in range(len(budgets))]
    return {
        "tied_set_rate": hits / len(first),
        "regret": regrets[0],
        "cost_fraction": statistics.fmean(verdict.cost for verdict in first),
        "interval": interval(hits, len(first)),
        "regrets": dict(zip(map(str, budgets), regrets, strict=True)),
        "budget": budgets[0],
        "repeats": len(first),
    }


def about(table: Table, good: Tied) -> dict[str, Any]:
    """What is right on a table."""
    return {
        "tied_set": good.methods,
        "methods": len(table.methods),
        "guess": len(good.methods) / len(table.methods),
        "capped": good.capped,
        "held_out": table.task == HELD_OUT,
    }


def compared(costs: dict[tuple[str, str], float], tasks: Sequence[str]) -> dict[str, Any]:
    """Our cost over that of the study with a categorical method; of the task kept out of all tuning by itself."""
    tuned = [task for task in tasks if task != HELD_OUT] or list(tasks)
    return {
        "ratio": _ratio(costs, tuned),
        "tasks": tuned,
        "held_out_ratio": _ratio(costs, [HELD_OUT]) if HELD_OUT in tasks else None,
        "ratios": {task: _ratio(costs, [task]) for task in tasks},
        "of": OURS,
        "to": THEIRS,
    }


def _ratio(costs: dict[tuple[str, str], float], tasks: Sequence[str]) -> float | None:
    if not all((task, policy) in costs for task in tasks for policy in (OURS, THEIRS)):
        return None
    return sum(costs[task, OURS] for task in tasks) / sum(costs[task, THEIRS] for task in tasks)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", nargs="+", type=Path, default=sorted(CURVES.glob("*.parquet")), metavar="FILE",
                        help="tables with the columns " + ", ".join(COLUMNS))  # fmt: skip
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES), metavar="POLICY")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.25], metavar="SHARE",
                        help="of the table's cost; the first counts, of the others the regret is told")  # fmt: skip
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--standard-error", type=float, help="of a score; left out, that of a share of the rows")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    if not asked.curves:
        parser.error(f"there are no tables in {CURVES.name}; record them, or name some with --curves")
    if asked.repeats < 1 or min(asked.budgets) <= 0 or asked.lanes < 1:
        parser.error("--repeats, --lanes and --budgets must be above 0")
    return asked


if __name__ == "__main__":
    main()
