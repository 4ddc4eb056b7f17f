"""The pieces of the comparison of all methods: which there are, which are done, and how one is trained.

A piece is one training run: a *trial* of a method's configuration, scored on validation, or a retraining of a method's
best configuration with another seed, scored on the test rows (a *final*). A finished piece is one JSON line, so that
nothing is lost but the piece that is being trained.
"""

from __future__ import annotations

import json
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow.parquet as pq
from optuna.distributions import CategoricalDistribution

import methods
import search_spaces
from benchmarks._load_task import LoadedTask
from benchmarks._task_scores import trivial_statistics
from benchmarks.record_curves import BATCH_SIZES
from benchmarks.record_curves import RUNGS as RECORDED_RUNGS
from methods.base.spec import MethodError
from methods.families.peft_type_names import trainable_types
from orchestrator.common.trial_types import Job, TrialKey, trial_seed
from orchestrator.engine.measurements import standard_error_measurement
from orchestrator.engine.step import train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import DivergedError, TrialRun
from orchestrator.tasks.class_metrics import predicted_labels
from orchestrator.tasks.tokens import integers

COMPOSITION = "compose:prefix+adapter"
RUNGS = (0.25, 0.5, 1.0)
"""Fractions of a trial's steps at which it is scored on validation."""
RECORDED_STEPS = RECORDED_RUNGS[-1]
Record = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """One training run.

    Args:
        task: Name of the task.
        method: Name of the method.
        config_id: Number of the configuration; 0 is the method's default.
        steps: Optimizer steps.
        seed: Number of the retraining; -1 for the trial itself.
    """

    task: str
    method: str
    config_id: int
    steps: int
    seed: int = -1


def method_names() -> tuple[str, ...]:
    """Return all names of methods that train: with a file, of each `peft` type, and one composition."""
    named = [name for name in methods.names() if methods.get(name).trains]
    return (*named, *(f"peft:{kind}" for kind in trainable_types()), COMPOSITION)


def read_records(*files: Path) -> list[Record]:
    """Return the finished pieces and the described tasks of files, JSON lines or parquet; files may be missing."""
    lines: list[str] = []
    for file in filter(Path.exists, files):
        if file.suffix == ".parquet":
            lines += pq.read_table(file)["record"].to_pylist()
        else:
            lines += [line for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return list({_key(record): record for record in map(json.loads, lines)}.values())


def recorded_trials(files: Sequence[Path]) -> list[Record]:
    """Return the trials of recorded tables, which were trained by the same rules, without measurements.

    Args:
        files: Tables as ``benchmarks.record_curves`` writes them; configuration 0 is the default there too.
    """
    trials: dict[Piece, Record] = {}
    for row in (row for file in files for row in pq.read_table(file).to_pylist()):
        steps, score = RECORDED_STEPS, row["score"]
        piece = Piece(row["task"], row["method"], row["config_id"], steps)
        record = trials.setdefault(piece, {"kind": "trial", **asdict(piece), "params": json.loads(row["params"])})
        point = {"step": row["step"], "seconds": row["seconds"], "score": score}
        record["curve"] = [*record.get("curve", []), point]
        record |= {"score": score, "standard_error": row["standard_error"], "recorded": True}
    return list(trials.values())


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Append a line in one write, so that two processes can share a file; a line that was cut short is ended first."""
    is_cut = file.exists() and file.stat().st_size and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n" * bool(is_cut) + json.dumps(record, sort_keys=True) + "\n")


def _key(record: Record) -> tuple[Any, ...]:
    if record["kind"] == "task":
        return record["kind"], record["task"]
    return tuple(record[name] for name in ("task", "method", "config_id", "steps", "seed"))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and how thoroughly.

    Args:
        methods: Names of the methods.
        configurations: Configurations of each; the first is its default.
        steps: Optimizer steps of a trial.
        finalists: Methods that are trained anew, the best on validation.
        seeds: Retrainings of each.
    """

    methods: tuple[str, ...] = field(default_factory=lambda: method_names())
    configurations: int = 16
    steps: int = 80
    finalists: int = 8
    seeds: int = 3

    def missing(self, records: Sequence[Record], task: str) -> list[Piece]:
        """Return the pieces of a task that are not done, every method's default first; finals after all trials."""
        done = {Piece(*_key(record)) for record in records if record["kind"] != "task"}
        numbers = range(self.configurations)
        trials = [Piece(task, method, number, self.steps) for number in numbers for method in self.methods]
        return [piece for piece in trials if piece not in done] or [
            piece for piece in self._finals(records, task) if piece not in done
        ]

    def _finals(self, records: Sequence[Record], task: str) -> list[Piece]:
        best = best_trials(records, task, self.steps)
        ranked = sorted((best[name] for name in self.methods if name in best), key=lambda record: -record["score"])
        return [
            Piece(task, trial["method"], trial["config_id"], self.steps, seed)
            for trial in ranked[: self.finalists]
            for seed in range(self.seeds)
        ]


def best_trials(records: Sequence[Record], task: str, steps: int) -> dict[str, Record]:
    """Return the best finished trial of each method on validation."""
    best: dict[str, Record] = {}
    for record in records:
        if (record["kind"], record["task"], record.get("steps")) != ("trial", task, steps) or record["score"] is None:
            continue
        if record["method"] not in best or record["score"] > best[record["method"]]["score"]:
            best[record["method"]] = record
    return best


def configuration(task: str, method: str, number: int) -> dict[str, Any]:
    """Return a method's default configuration for number 0, else a random one from its space, by a seed of its own."""
    space = search_spaces.get(method)
    if number == 0:
        return dict(space.default)
    distributions = dict(space.distributions)
    if task in BATCH_SIZES:
        distributions["batch_size"] = CategoricalDistribution(BATCH_SIZES[task])
    sampler = optuna.samplers.RandomSampler(seed=zlib.crc32(f"{method}/{number}".encode()))
    return dict(optuna.create_study(sampler=sampler).ask(distributions).params)


def params_of(piece: Piece, records: Sequence[Record]) -> dict[str, Any]:
    """Return a piece's hyperparameters; a final has those of its trial."""
    if piece.seed < 0:
        return configuration(piece.task, piece.method, piece.config_id)
    trial = replace(piece, seed=-1)
    params: dict[str, Any] = next(r["params"] for r in records if r["kind"] == "trial" and Piece(*_key(r)) == trial)
    return params


def describe_task(task: LoadedTask) -> Record:
    """Return a task's rows, the true labels of its test rows, and what trivial predictors score on them."""
    test = task.data.splits["test"]
    if len(task.data.labels) > 10:
        raise ValueError(f"{task.name} has {len(task.data.labels)} labels; write one with ten at most")
    predictions = task.kind.right_predictions(test)
    trivial = trivial_statistics(task.kind, task.data.splits, predictions)
    whole = np.arange(test.num_rows)[None]
    return {
        "kind": "task",
        "task": task.name,
        "metric": task.kind.optimized.name,
        "labels": list(task.data.labels),
        "rows": {split: rows.num_rows for split, rows in task.data.splits.items()},
        "truth": _digits(integers(test, "label")),
        "trivial": {name: float(statistic(whole)[0]) for name, statistic in trivial.items()},
    }


def train(piece: Piece, task: LoadedTask, params: Mapping[str, Any], sources: Mapping[str, TaskDataset]) -> Record:
    """Train a piece alone, and return its line; a refusal or a divergence is its ``error``.

    Args:
        piece: What to train.
        task: Its task.
        params: Its hyperparameters.
        sources: Other tasks that a method may learn from first.
    """
    retraining = None if piece.seed < 0 else piece.seed
    key = TrialKey(f"{piece.task}/{piece.method}", piece.config_id)
    job = Job(trial=key, params=dict(params), seed=trial_seed(0, key, retraining), start=0, stop=piece.steps,
              total=piece.steps, retraining=retraining)  # fmt: skip
    record: Record = {"kind": "trial" if retraining is None else "final", **asdict(piece)}
    record |= {"params": dict(params), "score": None}
    metric, begin = task.kind.optimized.name, time.process_time()
    try:
        run = TrialRun(job, task.backbone, task.dataset, task.dataset.training, sources)
        if retraining is None:
            record |= _train_with_curve(run, metric)
        else:
            record["train_cpu_seconds"] = _train(run, piece.steps)
            evaluation = run.evaluate("test")
            record |= {"score": evaluation.metrics[metric], "metrics": evaluation.metrics}
            record["predicted"] = _digits(predicted_labels(evaluation.predictions))
        with tempfile.TemporaryDirectory() as folder:
            run.save(Path(folder))
        record["measurements"] = run.measurements
    except (MethodError, DivergedError) as error:
        record["error"] = f"{type(error).__name__}: {error}"
    record["cpu_seconds"] = time.process_time() - begin
    return record


def _train_with_curve(run: TrialRun, metric: str) -> Record:
    """Train all steps, and return the curve with its last score, the error of that, and the time of training."""
    curve: list[dict[str, float]] = []
    trained, begin = 0.0, time.process_time()
    for rung in sorted({max(1, round(fraction * run.job.total)) for fraction in RUNGS}):
        trained += _train(run, rung)
        evaluation = run.evaluate("validation")
        curve.append({"step": rung, "seconds": time.process_time() - begin, "score": evaluation.metrics[metric]})
    error = standard_error_measurement(run.dataset, evaluation)["validation_standard_error"]
    return {"curve": curve, "score": curve[-1]["score"], "standard_error": error, "train_cpu_seconds": trained}


def _train(run: TrialRun, stop: int) -> float:
    """Train until a step, and return the CPU seconds that it took."""
    begin = time.process_time()
    while run.step < stop:
        for _, error in train_step([run]):
            raise error
    return time.process_time() - begin


def _digits(values: Any) -> str:
    return "".join(map(str, values.tolist()))
