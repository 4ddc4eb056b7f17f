"""What tuning still brings after a search, learned from recorded tables of learning curves.

    python -m benchmarks.tuning_gain                                # writes orchestrator/selection/tuning_gain.json
    python -m benchmarks.tuning_gain --curves benchmarks/curves/*.parquet mine.parquet

Every table is searched many times, by the race and in turns, with 1 to 16 trials per method, with and without early
stopping. After each search, the distance from each method's best full trial up to its best in the table is written
down; see ``orchestrator.selection.tuning_gain`` for what is kept. ``named_share`` has the quartiles of the share of the
methods that a sweep names after so many trials per method, with gains from the other tasks: ``plan`` says them. A table
of an exhaustive search of yours counts like those in ``benchmarks/curves``, see ``benchmarks.selection --help`` for its
columns.
"""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks._command_line import argument_parser, emit
from benchmarks._named import learn, named_shares, search_tables
from orchestrator.selection.tuning_gain import FILE
from orchestrator.simulation.table import Table

CURVES = Path(__file__).with_name("curves")


def main() -> None:
    """Learn the gains, and write them."""
    parser = argument_parser(__doc__)
    parser.add_argument("--curves", nargs="+", type=Path, default=sorted(CURVES.glob("*.parquet")), metavar="FILE")
    parser.add_argument("--repeats", type=int, default=30, help="searches per table and budget (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=FILE, help="file to write (default: the package's)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="processes (default: %(default)s)")
    arguments = parser.parse_args()
    tables = Table.read(arguments.curves)
    with ProcessPoolExecutor(arguments.processes) as pool:
        searches = search_tables(tables, arguments.repeats, pool)
    learned = {
        "tasks": [table.task for table in tables],
        "full_search": {table.task: max(map(len, table.methods.values())) for table in tables},
        "named_share": named_shares(searches),
        "gains": learn(searches).to_dict(),
    }
    text = json.dumps(learned, indent=1)
    arguments.out.write_text(_one_line_lists(text) + "\n", encoding="utf-8")
    emit(benchmark="tuning_gain", out=str(arguments.out), tasks=learned["tasks"], named_share=learned["named_share"])


def _one_line_lists(text: str) -> str:
    """Return JSON with each innermost list on one line, so that a change of a method is a change of its lines."""
    return re.sub(r"\[[^\[\]{}]*\]", lambda match: " ".join(match.group().split()), text)


if __name__ == "__main__":
    main()
