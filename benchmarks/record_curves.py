"""Recording of learning curves: trains all trials of an exhaustive search, for later replays of search policies.

    python -m benchmarks.record_curves                       # all tasks
    python -m benchmarks.record_curves --tasks airline       # one task

Every method has the same number of configurations, its default and random ones from its search space. Each is trained
to the last rung on NF4 MiniLM and scored on the validation rows at every rung. This takes hours on two cores. It can be
interrupted at any time: finished trials are on disk, and the next call trains the missing ones. Calls with different
``--tasks`` can run at the same time.

The tables are ``benchmarks/curves/TASK.parquet`` with the columns ``task``, ``method``, ``config_id``, ``params``
(JSON text), ``step`` (optimizer steps), ``seconds`` (wall seconds of training and scoring until that step), ``score``
(validation macro-F1), ``rows`` (number of validation rows), and ``standard_error`` (of the task's best score, over
these rows and over seeds; its configuration is trained three more times). Progress lines on stderr show the trial's
last validation macro-F1.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import torch
from optuna.distributions import CategoricalDistribution
from pyarrow import parquet

import search_spaces
from benchmarks._common import MINILM, argument_parser, scratch_folder
from benchmarks._load_task import load_task
from benchmarks._recorded_tasks import TASKS
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.trial_types import Job, TrialKey, trial_seed
from orchestrator.config import Training
from orchestrator.engine.measurements import standard_error_measurement
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import DivergedError, TrialRun

METHODS = ("full", "last_layers", "linear_probe", "lora", "ia3", "adapter", "prompt", "prefix")
CONFIGURATIONS, RUNGS = 16, (10, 20, 40, 80)
TRAINING = Training(max_steps=RUNGS[-1], max_length=64, validation_rows=768)
BATCH_SIZES, VALIDATION_ROWS = {"negation": (8, 16)}, {"negation": 384}
"""Tasks with smaller batches and fewer scored rows than the other tasks, which shortens their recording."""
RETRAININGS = 3
CURVES = Path(__file__).with_name("curves")


def main() -> None:
    """Train and record the trials that are missing."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="tasks to record (default: all)"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), help="methods to record (default: all)"
    )
    parser.add_argument(
        "--configurations",
        type=int,
        default=CONFIGURATIONS,
        help="configurations of every method (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=CURVES, metavar="FOLDER", help="folder of the tables (default: benchmarks/curves)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for task in arguments.tasks:
        with scratch_folder() as folder:
            _record_task(task, arguments.methods, arguments.configurations, folder, arguments.out)


def _record_task(name: str, methods: list[str], configurations: int, folder: Path, out: Path) -> None:
    file = out / f"{name}.jsonl"
    recorded = {(row["method"], row["config_id"]) for row in _read_rows(file)}
    trials = [(m, i, params) for i in range(configurations) for m, params in _configurations(name, methods, i)]
    missing = [trial for trial in trials if trial[:2] not in recorded]
    backbone, dataset = _load_task(name, folder)
    start = time.perf_counter()
    for count, (method, number, params) in enumerate(missing, 1):
        curve = list(_train_curve(name, method, number, params, backbone, dataset))
        # One write per trial: a file never holds a part of a curve, which a resumed call would take for a whole one.
        with file.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in curve))
        remaining_s = (time.perf_counter() - start) / count * (len(missing) - count)
        print(f"{name} {count}/{len(missing)} {method}/{number} macro-F1 {curve[-1]['score']:.3f}, "
              f"about {remaining_s / 60:.0f} min left", file=sys.stderr, flush=True)  # fmt: skip
    rows = [row for row in _read_rows(file) if row["method"] in methods]
    task_columns = {
        "rows": VALIDATION_ROWS.get(name, TRAINING.validation_rows),
        "standard_error": _standard_error(name, rows, backbone, dataset),
    }
    rows.sort(key=lambda row: (row["method"], row["config_id"], row["step"]))
    parquet.write_table(pa.Table.from_pylist([row | task_columns for row in rows]), out / f"{name}.parquet")


def _configurations(task: str, methods: list[str], number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each method's configuration: its default for number 0, else a random one from its search space."""
    for method in methods:
        space = search_spaces.get(method)
        if number == 0:
            yield method, dict(space.default)
            continue
        distributions = dict(space.distributions)
        if task in BATCH_SIZES:
            distributions["batch_size"] = CategoricalDistribution(BATCH_SIZES[task])
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1000 * METHODS.index(method) + number))
        yield method, study.ask(distributions).params


def _load_task(name: str, folder: Path) -> tuple[SharedBackbone, TaskDataset]:
    training = TRAINING.model_copy(update={"validation_rows": VALIDATION_ROWS.get(name, TRAINING.validation_rows)})
    task = load_task(name, TASKS[name](folder), MINILM, training, folder)
    return task.backbone, task.dataset


def _train_curve(
    task: str, method: str, number: int, params: dict[str, Any], backbone: SharedBackbone, dataset: TaskDataset
) -> Iterator[dict[str, Any]]:
    """Train a trial and yield a row per rung; its score is 0 from the rung where it diverges."""
    start, run, score = time.perf_counter(), _start_run(task, method, number, params, backbone, dataset), 0.0
    for rung in RUNGS:
        try:
            _train(run, rung)
            score = run.evaluate("validation").metrics["macro_f1"]
        except DivergedError:
            score = 0.0
        yield {
            "task": task,
            "method": method,
            "config_id": number,
            "params": json.dumps(params, sort_keys=True),
            "step": rung,
            "seconds": time.perf_counter() - start,
            "score": score,
        }


def _standard_error(task: str, curves: list[dict[str, Any]], backbone: SharedBackbone, dataset: TaskDataset) -> float:
    """Return the standard error of the best score, over validation rows and over seeds of the training."""
    best = max((row for row in curves if row["step"] == RUNGS[-1]), key=lambda row: row["score"])
    scores, errors = [], []
    for retraining in range(RETRAININGS):
        params = json.loads(best["params"])
        run = _start_run(task, best["method"], best["config_id"], params, backbone, dataset, retraining)
        _train(run, RUNGS[-1])
        evaluation = run.evaluate("validation")
        scores.append(evaluation.metrics["macro_f1"])
        errors.append(standard_error_measurement(dataset, evaluation)["validation_standard_error"])
        name = f"{task} {best['method']}/{best['config_id']}"
        print(f"{name} retrained: macro-F1 {scores[-1]:.3f}, at first {best['score']:.3f}", file=sys.stderr)
    return math.hypot(statistics.fmean(errors), statistics.stdev(scores))


def _start_run(
    task: str,
    method: str,
    number: int,
    params: dict[str, Any],
    backbone: SharedBackbone,
    dataset: TaskDataset,
    retraining: int | None = None,
) -> TrialRun:
    key, last = TrialKey(f"{task}/{method}", number), RUNGS[-1]
    seed = trial_seed(0, key, retraining)
    job = Job(trial=key, params=params, seed=seed, start=0, stop=last, total=last, retraining=retraining)
    return TrialRun(job, backbone, dataset, TRAINING)


def _train(run: TrialRun, stop: int) -> None:
    while run.step < stop:
        loss = run.forward()
        loss.backward()
        run.finish_step(loss)


def _read_rows(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


if __name__ == "__main__":
    main()
