"""What it costs and gains that a trial within noise of those that continue is not stopped on few results.

    python -m benchmarks.early_stopping                       # the tables in benchmarks/curves
    python -m benchmarks.early_stopping --curves mine.parquet --repeats 100

Each table is searched by the race, with successive halving by rank alone (``by_rank``) and as in a sweep
(``within_noise``; see :mod:`orchestrator.search.early_stopping`). A line per task and rule has, at a quarter of the
table's cost and at 2, 4 and 8 trials per method:

- ``tied_set_rate``: fraction of the repeats that name a method of the tied set of :mod:`benchmarks.selection`.
- ``regret``: mean difference between the table's best score and the named method's.
- ``cost``: mean cost of the search as a fraction of the table's; at a quarter of the cost, the cost until the named
  method is in the tied set and remains there.
"""

from __future__ import annotations

import math
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks._command_line import argument_parser, emit
from benchmarks._verdicts import TiedSet, find_tied_set, judge
from orchestrator.search.allocation import Race
from orchestrator.search.early_stopping import Halving
from orchestrator.simulation.replay import core, incumbents, replay
from orchestrator.simulation.table import Table

CURVES = Path(__file__).with_name("curves")
RULES = {"by_rank": Halving(few_results=0), "within_noise": Halving()}
QUARTER = 0.25
TRIALS_PER_METHOD = (2, 4, 8)
Figures = tuple[float, float, float]


def main() -> None:
    """Search every table by both rules."""
    parser = argument_parser(__doc__)
    parser.add_argument("--curves", nargs="+", type=Path, default=sorted(CURVES.glob("*.parquet")), metavar="FILE")
    parser.add_argument("--repeats", type=int, default=30, help="searches per table and rule (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at the same time (default: %(default)s)")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.processes) as pool:
        for table in Table.read(arguments.curves):
            for rule in RULES:
                search = partial(figures, rule, table, find_tied_set(table))
                repeats = list(pool.map(search, range(arguments.repeats), chunksize=5))
                for place, budget in enumerate(("quarter", *map(str, TRIALS_PER_METHOD))):
                    rate, regret, cost = (
                        statistics.fmean(run[place][column] for run in repeats) for column in range(3)
                    )
                    emit(task=table.task, rule=rule, budget=budget, tied_set_rate=rate, regret=regret, cost=cost)


def figures(rule: str, table: Table, tied_set: TiedSet, seed: int) -> list[Figures]:
    """Return whether the named method is in the tied set, its regret, and the cost, at each budget."""
    halving = RULES[rule]
    results = replay(core(Race(), halving=halving), table, seed, QUARTER * table.cost, lanes=2)
    verdict = judge(table, incumbents(results), tied_set)
    told = [(float(verdict.in_tied_set), verdict.regret, verdict.cost)]
    for trials in TRIALS_PER_METHOD:
        policy = core(Race(), halving, trials=trials * len(table.methods))
        results = replay(policy, table, seed, math.inf, lanes=2)
        verdict = judge(table, incumbents(results), tied_set)
        told.append((float(verdict.in_tied_set), verdict.regret, results[-1].cost / table.cost))
    return told


if __name__ == "__main__":
    main()
