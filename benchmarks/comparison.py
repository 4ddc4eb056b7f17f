"""The comparison of all methods that train, on real tasks, in pieces: tuned on validation, finalists on test.

    python -m benchmarks.comparison --minutes 60      # train for an hour; call it again to go on
    python -m benchmarks.comparison --page            # write tables, page and picture of what is done

Every method (a file each, each `peft` type, one composition; 47) has the same number of configurations: its default,
and random ones from its search space with batches of 8 or 16 rows. Each is one trial on NF4 MiniLM, scored on
validation at a quarter, a half and the end of its steps. The best configuration of each of the finalists, which are the
best methods on validation, is then trained anew with each of three seeds and scored on the test rows.

A finished trial or retraining is a line of ``--records``; those of the published tables count as done as well. A call
trains what is missing, each method's default first. It can be stopped at any time, and several calls with different
``--tasks`` may run at once. As trials are added, a method's best configuration may be another one, which is then
trained anew; what was trained before stays, and the page takes the best one that has all seeds.

``--page`` writes ``benchmarks/comparison/records.parquet`` (a row per piece), ``curves.parquet`` (the trials' learning
curves, with the columns of ``benchmarks/curves``, for ``benchmarks.tuning_gain`` and ``benchmarks.selection``),
``docs/comparison.md`` and ``docs/comparison.svg``. It trains nothing. The page says what it covers and what is missing.

A line on stderr per piece, and one JSON line at the end: the number of pieces ``trained`` by this call, of those
``done`` and still ``missing``, and the ``cpu_hours`` of all that are done.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import MINILM, argument_parser, emit, scratch_folder
from benchmarks._comparison_page import PUBLISHED, publish_page
from benchmarks._comparison_pieces import (
    Comparison,
    Record,
    describe_task,
    method_names,
    params_of,
    read_records,
    recorded_trials,
    train,
    write_record,
)
from benchmarks._load_task import LoadedTask, load_task
from benchmarks._recorded_tasks import TASKS
from benchmarks.record_curves import CURVES, TRAINING, VALIDATION_ROWS

COMPARED = ("airline", "events", "negation")
SOURCES = {"airline": "events", "events": "airline", "negation": "events"}
"""The other task that a method may learn from first, by task; multitask_prompt needs one."""


def main() -> None:
    """Train what is missing, or write the page."""
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--tasks", nargs="+", choices=list(TASKS), default=list(COMPARED), help="tasks (default: three)")
    add("--methods", nargs="+", default=list(method_names()), metavar="METHOD", help="methods (default: all)")
    add("--configurations", type=int, default=16, help="configurations of every method (default: %(default)s)")
    add("--steps", type=int, default=80, help="optimizer steps of a trial (default: %(default)s)")
    add("--finalists", type=int, default=8, help="methods that are trained anew (default: %(default)s)")
    add("--seeds", type=int, default=3, help="retrainings of each (default: %(default)s)")
    add("--minutes", type=float, default=float("inf"), help="start no piece after that many minutes")
    add("--records", type=Path, default=Path("comparison.jsonl"), help="file of the pieces (default: %(default)s)")
    add("--page", action="store_true", help="write the tables, the page and the picture, and train nothing")
    arguments = parser.parse_args()
    records = [*recorded_trials(sorted(CURVES.glob("*.parquet"))), *read_records(PUBLISHED, arguments.records)]
    plan = Comparison(
        methods=tuple(arguments.methods),
        configurations=arguments.configurations,
        steps=arguments.steps,
        finalists=arguments.finalists,
        seeds=arguments.seeds,
    )
    if arguments.page:
        publish_page(records, plan, arguments.tasks)
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    until = time.monotonic() + 60 * arguments.minutes
    with scratch_folder() as folder:
        session = Session(records, arguments.records, plan, folder)
        trained = sum(session.train_task(name, until) for name in arguments.tasks)
    missing = sum(len(plan.missing(records, name)) for name in arguments.tasks)
    pieces = [record for record in records if record["kind"] != "task" and not record.get("recorded")]
    hours = sum(record["cpu_seconds"] for record in pieces) / 3600
    emit(benchmark="comparison", trained=trained, done=len(pieces), missing=missing, cpu_hours=round(hours, 3))


class Session:
    """One call that trains missing pieces.

    Args:
        records: What is done; finished pieces are added.
        file: File that they are added to.
        plan: What is to be done.
        folder: Folder for the files of tasks and backbones.
        model: The backbone, as in a configuration.
        tasks: Sections of the tasks, as functions of the folder.
    """

    def __init__(
        self,
        records: list[Record],
        file: Path,
        plan: Comparison,
        folder: Path,
        model: str = MINILM,
        tasks: Mapping[str, Callable[[Path], dict[str, Any]]] = TASKS,
    ) -> None:
        self._records, self._file, self._plan = records, file, plan
        self._folder, self._model, self._tasks = folder, model, tasks
        self._loaded: dict[str, LoadedTask] = {}

    def train_task(self, name: str, until: float = math.inf) -> int:
        """Train the missing pieces of a task, and return their number; start none after ``until`` (monotonic)."""
        count = 0
        while time.monotonic() < until and (missing := self._plan.missing(self._records, name)):
            piece, task = missing[0], self._load(name)
            if not any(record["kind"] == "task" and record["task"] == name for record in self._records):
                self._add(describe_task(task))
            source = SOURCES.get(name) if piece.method == "multitask_prompt" else None
            sources = {source: self._load(source).dataset} if source else {}
            record = train(piece, task, params_of(piece, self._records), sources)
            self._add(record)
            count += 1
            score = record.get("error") or f"{record['score']:.3f}"
            line = (
                f"{name} {piece.method}/{piece.config_id} {record['kind']} {score}, {record['cpu_seconds']:.1f} CPU s"
            )
            print(line, file=sys.stderr, flush=True)
        return count

    def _load(self, name: str) -> LoadedTask:
        if name not in self._loaded:
            rows = VALIDATION_ROWS.get(name, TRAINING.validation_rows)
            training = TRAINING.model_copy(update={"max_steps": self._plan.steps, "validation_rows": rows})
            self._loaded[name] = load_task(name, self._tasks[name](self._folder), self._model, training, self._folder)
        return self._loaded[name]

    def _add(self, record: Record) -> None:
        write_record(self._file, record)
        self._records.append(record)


if __name__ == "__main__":
    main()
