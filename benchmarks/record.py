"""Train an exhaustive table of learning curves, for judging search policies without training anything.

Every method gets the same number of configurations, its default first and the rest drawn from its search space; each
is trained to the end on the NF4 encoder and scored on the validation rows at every rung. It takes hours on two cores.
Stop it whenever you like: a finished trial is on disk, and the next call goes on with those that are missing. Several
calls at once share the work when each is given its own tasks.

    python -m benchmarks.record                       # everything
    python -m benchmarks.record --tasks airline       # one task of it

The tables are ``benchmarks/curves/TASK.parquet`` with the columns ``task``, ``method``, ``config_id``, ``params``
(JSON text), ``step``, ``seconds`` (of training and scoring until that step), ``score`` (macro-F1), ``rows`` (that were
scored) and ``standard_error`` (of the task's best score, over those rows and over seeds: it is trained thrice more).
"""

from __future__ import annotations

import argparse
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
from pydantic import TypeAdapter

import search_spaces
from benchmarks._common import MINILM, published, scratch
from benchmarks._recorded_tasks import TASKS
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import resolve
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey, trial_seed
from orchestrator.config import BackboneConfig, Task, Training
from orchestrator.engine.measurements import standard_error_measurement
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import DivergedError, TrialRun
from orchestrator.tasks import TASK_TYPES, read_task

METHODS = ("full", "last_layers", "linear_probe", "lora", "ia3", "adapter", "prompt", "prefix")
CONFIGURATIONS, RUNGS = 16, (10, 20, 40, 80)
TRAINING = Training(max_steps=RUNGS[-1], max_length=64, validation_rows=768)
BATCH_SIZES, VALIDATION_ROWS = {"negation": (8, 16)}, {"negation": 384}
"""Where the largest batches are not drawn, and fewer rows are scored, since recording takes hours as it is."""
RETRAININGS = 3
CURVES = Path(__file__).with_name("curves")


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--configurations", type=int, default=CONFIGURATIONS)
    parser.add_argument("--out", type=Path, default=CURVES)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    for task in asked.tasks:
        with scratch() as folder:
            _record_task(task, asked.methods, asked.configurations, folder, asked.out)


def _record_task(name: str, methods: list[str], configurations: int, folder: Path, out: Path) -> None:
    kept = out / f"{name}.jsonl"
    done = {(row["method"], row["config_id"]) for row in _read(kept)}
    wanted = [(m, i, params) for i in range(configurations) for m, params in _configurations(name, methods, i)]
    missing = [one for one in wanted if one[:2] not in done]
    backbone, rows = _ready(name, folder)
    begin = time.perf_counter()
    for count, (method, number, params) in enumerate(missing, 1):
        curve = list(_curve(name, method, number, params, backbone, rows))
        with kept.open("a", encoding="utf-8") as opened:  # all of a trial at once
            opened.write("".join(json.dumps(row) + "\n" for row in curve))
        left = (time.perf_counter() - begin) / count * (len(missing) - count)
        print(f"{name} {count}/{len(missing)} {method}/{number} {curve[-1]['score']:.3f}, {left / 60:.0f} min left",
              file=sys.stderr, flush=True)  # fmt: skip
    found = [row for row in _read(kept) if row["method"] in methods]
    about = {
        "rows": VALIDATION_ROWS.get(name, TRAINING.validation_rows),
        "standard_error": _standard_error(name, found, backbone, rows),
    }
    ordered = sorted(found, key=lambda r: (r["method"], r["config_id"], r["step"]))
    parquet.write_table(pa.Table.from_pylist([row | about for row in ordered]), out / f"{name}.parquet")


def _configurations(task: str, methods: list[str], number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each method, its default or the ``number``-th random draw from its space."""
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


def _ready(name: str, folder: Path) -> tuple[SharedBackbone, TaskDataset]:
    config: Task = TypeAdapter(Task).validate_python(TASKS[name](folder), context={"base": folder})
    data = read_task(name, config, folder, 0)
    tokenizer = resolve(BackboneConfig(model=MINILM), folder).tokenizer()
    kind = TASK_TYPES[config.type]
    tables = {split: kind.tokenize(rows, tokenizer, TRAINING.max_length) for split, rows in data.splits.items()}
    backbone = load(
        published(MINILM, kind.name, folder),
        kind.name,
        name=MINILM,
        dtype=compute_dtype("auto", torch.device("cpu")),
        labels=len(data.labels),
        original=published(MINILM, kind.name, folder, "none"),
    )
    scored = TRAINING.model_copy(update={"validation_rows": VALIDATION_ROWS.get(name, TRAINING.validation_rows)})
    return backbone, TaskDataset(config, tables, tokenizer.pad_token_id, False, scored, 0, Storage.at(str(folder)))


def _curve(
    task: str, method: str, number: int, params: dict[str, Any], backbone: SharedBackbone, rows: TaskDataset
) -> Iterator[dict[str, Any]]:
    """A row per rung; a trial that diverges scores 0 from there on."""
    begin, run, score = time.perf_counter(), _begun(task, method, number, params, backbone, rows), 0.0
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
            "seconds": time.perf_counter() - begin,
            "score": score,
        }


def _standard_error(task: str, curves: list[dict[str, Any]], backbone: SharedBackbone, rows: TaskDataset) -> float:
    """How far the best score would move with other validation rows and another seed of the training."""
    best = max((row for row in curves if row["step"] == RUNGS[-1]), key=lambda row: row["score"])
    scores, errors = [], []
    for retraining in range(RETRAININGS):
        params = json.loads(best["params"])
        run = _begun(task, best["method"], best["config_id"], params, backbone, rows, retraining)
        _train(run, RUNGS[-1])
        evaluation = run.evaluate("validation")
        scores.append(evaluation.metrics["macro_f1"])
        errors.append(standard_error_measurement(rows, evaluation)["validation_standard_error"])
        print(
            f"{task} {best['method']}/{best['config_id']} {best['score']:.3f} again: {scores[-1]:.3f}", file=sys.stderr
        )
    return math.hypot(statistics.fmean(errors), statistics.stdev(scores))


def _begun(
    task: str,
    method: str,
    number: int,
    params: dict[str, Any],
    backbone: SharedBackbone,
    rows: TaskDataset,
    retraining: int | None = None,
) -> TrialRun:
    key, last = TrialKey(f"{task}/{method}", number), RUNGS[-1]
    seed = trial_seed(0, key, retraining)
    job = Job(trial=key, params=params, seed=seed, start=0, stop=last, total=last, retraining=retraining)
    return TrialRun(job, backbone, rows, TRAINING)


def _train(run: TrialRun, until: int) -> None:
    while run.step < until:
        loss = run.forward()
        loss.backward()
        run.finish_step(loss)


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


if __name__ == "__main__":
    main()
