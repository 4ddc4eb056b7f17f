"""Train methods of one task as a pack, and score them beside the task's trivial predictors on the test rows."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks._common import SMOLLM2, emit
from benchmarks._load_task import tokenized
from orchestrator import engine
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.config import SweepConfig
from orchestrator.selection.intervals import Statistic, bootstrap_interval, bootstrap_jointly
from orchestrator.tasks import TASK_TYPES, TaskType, read_task
from orchestrator.tasks.data import Splits, TaskData
from orchestrator.tasks.token_types import with_token_types

SPLITS = ("train", "validation", "test")
EVERY_STEPS = 100
"""Steps between two lines of progress."""
Params = Mapping[str, Any]


def measure(
    name: str,
    section: Mapping[str, Any],
    data: Path,
    model: str,
    methods: Mapping[str, Params],
    *,
    steps: int,
    training: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Train methods as one pack, and print a line for each.

    Args:
        name: Name of the task, with which its files begin.
        section: The task as in a configuration; its files are those of the folder if it names none.
        data: Folder of the files.
        model: The backbone, as in a configuration; MiniLM is not quantized, SmolLM2 is NF4.
        methods: Hyperparameters by method, after whose name more words may stand.
        steps: Optimizer steps of a trial.
        training: Other limits of a trial.
    """
    files = {split: str(data / f"{name}-{split}.parquet") for split in SPLITS}
    values = {"backbone": {"model": model}, "tasks": {name: {"data": files, **section}}, "budget": {"trials": 1}}
    config = SweepConfig.model_validate({**values, "training": {"max_steps": steps, **training}})
    data_of_task, dataset, backbone = _prepared(config, name, model)
    begin = time.process_time()
    names = {
        engine.TrialRun.start(method.partition(" ")[0], backbone, dataset, steps=steps, params=params): method
        for method, params in methods.items()
    }
    runs = list(names)
    trained = [run for run in runs if run.trains]
    for step in range(1, steps + 1):
        for _, error in engine.train_step(trained):
            raise error
        if step % EVERY_STEPS == 0:
            print(f"{name} step {step} of {steps}, {_cpu_minutes(begin):.1f} CPU minutes", file=sys.stderr, flush=True)
    metric = dataset.type.optimized
    scores = {run: run.evaluate("validation").metrics[metric.name] for run in runs}
    runs.sort(key=scores.__getitem__, reverse=metric.higher_is_better)
    for run in runs:
        run.evaluate("test")
    rows = data_of_task.splits["test"].num_rows
    common = {"steps": steps, "rows": rows, "cpu_minutes": round(_cpu_minutes(begin), 1)}
    trivial = trivial_statistics(dataset.type, data_of_task.splits, runs[0].evaluate("test").predictions)
    common["trivial"] = {does: _scored(statistic, rows) for does, statistic in trivial.items()}
    for run in runs:
        method = names[run]
        metrics = {each: _scored(_statistic(run, each), rows) for each in dataset.type.chosen}
        gap = {} if run is runs[0] else _gap(_statistic(runs[0], metric.name), _statistic(run, metric.name), rows)
        fields = {"params": methods[method], "validation": scores[run], "metrics": metrics, **gap}
        emit(benchmark="tasks", task=name, method=method, **common, **fields)


def trivial_statistics(type_: TaskType, splits: Splits, predictions: pa.Table) -> dict[str, Statistic]:
    """Return what each trivial predictor of a task scores in the optimized metric, by what it does.

    Args:
        type_: The task's type, with its metrics.
        splits: The task's rows.
        predictions: A model's predictions of the scored rows, for the rows.
    """
    score = partial(type_.score_many, type_.optimized.name)
    predictors = type_.trivial_predictors(splits, predictions)
    return {predictor.name: predictor.statistic(score) for predictor in predictors}


def _prepared(config: SweepConfig, name: str, model: str) -> tuple[TaskData, engine.TaskDataset, SharedBackbone]:
    """Return the task's rows, the tokenized task, and its backbone."""
    tokenizer, kind = engine.pretrained_tokenizer(model), TASK_TYPES[config.tasks[name].type]
    data = read_task(name, config.tasks[name], Path.cwd(), config.seed)
    labels = kind.head_size(len(data.labels))
    form: dict[str, Any] = {"quantization": "none"}
    if model == SMOLLM2:
        form = {"quantization": "nf4", "dtype": compute_dtype("auto", torch.device("cpu"))}
    backbone = engine.pretrained(model, kind.name, labels=labels, **form)
    data = with_token_types(data, backbone.model.config, tokenizer)
    return data, tokenized(data, tokenizer, backbone, config.training), backbone


def _statistic(run: engine.TrialRun, metric: str) -> Statistic:
    return partial(run.dataset.type.score_many, metric, run.evaluate("test").predictions)


def _scored(statistic: Statistic, rows: int) -> dict[str, Any]:
    """Return a score on all rows with its 95 % interval."""
    whole = float(statistic(np.arange(rows)[None])[0])
    return {"score": whole, "interval": bootstrap_interval(statistic, rows, seed=0)}


def _gap(best: Statistic, other: Statistic, rows: int) -> dict[str, Any]:
    """Return how much more the first score is than the second, with its 95 % interval."""
    scores = bootstrap_jointly([best, other], rows, seed=0)
    low, high = np.quantile(scores[:, 0] - scores[:, 1], [0.025, 0.975])
    whole = np.arange(rows)[None]
    gap = float(best(whole)[0] - other(whole)[0])
    return {"gap": gap, "gap_interval": [float(low), float(high)]}


def _cpu_minutes(begin: float) -> float:
    return (time.process_time() - begin) / 60
