"""Scores of methods on public data sets: how good a trial is, on the rows that others report.

    python -m benchmarks.tasks stsb --data DIR             # how much two sentences say the same
    python -m benchmarks.tasks wnut17 --data DIR           # unusual entities in short messages

DIR holds SET-train.parquet, SET-validation.parquet and SET-test.parquet, with the columns of the data set on the hub.
The methods train as one pack on one core, each in one trial of the configuration in this file, or with fewer
``--steps`` for a first look. Nothing is chosen by the test rows.

Prints one JSON line for each method, the best on validation first: ``task``, ``method``, ``params``, ``steps``,
``rows`` (of the test split, without duplicates), ``validation`` (the optimized metric), ``baseline`` and what it is,
``cpu_minutes`` of training and scoring (of all methods together), and by metric the ``score`` on the test rows with its
95 % ``interval``. Lines after the first also have the ``gap`` of the first method to theirs in the optimized metric,
and its interval over the same resamples.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._common import MINILM, argument_parser, emit
from orchestrator import engine
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.config import SweepConfig
from orchestrator.selection.intervals import Statistic, bootstrap_interval, bootstrap_jointly
from orchestrator.tasks import TASK_TYPES, read_task
from orchestrator.tasks.token_types import with_token_types

SPLITS = ("train", "validation", "test")
EVERY_STEPS = 100
"""Steps between two lines of progress."""
Params = Mapping[str, Any]


def stsb(data: Path, steps: int | None = None) -> None:
    """STS benchmark: pairs of sentences with a score from 0 to 5."""
    section = {"type": "regression", "text": "sentence1", "text_pair": "sentence2", "target": "score"}
    section |= {"metric": ["spearman", "pearson", "rmse"]}
    lora = {"learning_rate": 1.5e-3, "batch_size": 8, "rank": 16, "dropout": 0.0, "warmup": 0.1}
    measure("stsb", section, data, MINILM, {"lora": lora}, steps=steps or 2400)


def wnut17(data: Path, steps: int | None = None) -> None:
    """Emerging entities of WNUT 2017: words with tags of six types."""
    section = {"type": "token-classification", "tokens": "tokens", "tags": "tags"}
    section |= {"metric": ["entity_f1", "token_accuracy"]}
    lora = {"learning_rate": 2e-3, "batch_size": 8, "rank": 16, "dropout": 0.0, "warmup": 0.1}
    probe = {"learning_rate": 1e-2, "batch_size": 8}
    measure("wnut17", section, data, MINILM, {"lora": lora, "linear_probe": probe}, steps=steps or 1200)


TASKS: dict[str, Callable[[Path, int | None], None]] = {"stsb": stsb, "wnut17": wnut17}


def main() -> None:
    """Read the command line, and measure one task."""
    parser = argument_parser(__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets' files")
    parser.add_argument("--steps", type=int, help="optimizer steps of a trial")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    TASKS[arguments.task](arguments.data, arguments.steps)


def measure(
    name: str, section: Mapping[str, Any], data: Path, model: str, methods: Mapping[str, Params], *, steps: int
) -> None:
    """Train methods as one pack, and print a line for each.

    Args:
        name: Name of the task, with which its files begin.
        section: The task as in a configuration, without its files.
        data: Folder of the files.
        model: The backbone, as in a configuration; it is not quantized.
        methods: Hyperparameters by method.
        steps: Optimizer steps of a trial.
    """
    files = {split: str(data / f"{name}-{split}.parquet") for split in SPLITS}
    values = {"backbone": {"model": model}, "tasks": {name: {**section, "data": files}}, "budget": {"trials": 1}}
    config = SweepConfig.model_validate({**values, "training": {"max_steps": steps}})
    dataset, backbone, (baseline, rows) = _prepared(config, name, model)
    begin = time.process_time()
    runs = [
        engine.TrialRun.start(method, backbone, dataset, steps=steps, params=params)
        for method, params in methods.items()
    ]
    for step in range(1, steps + 1):
        for _, error in engine.train_step(runs):
            raise error
        if step % EVERY_STEPS == 0:
            print(f"{name} step {step} of {steps}, {_cpu_minutes(begin):.1f} CPU minutes", file=sys.stderr, flush=True)
    metric = dataset.type.optimized
    scores = {run: run.evaluate("validation").metrics[metric.name] for run in runs}
    runs.sort(key=scores.__getitem__, reverse=metric.higher_is_better)
    for run in runs:
        run.evaluate("test")
    minutes = _cpu_minutes(begin)
    for run in runs:
        evaluation, method = run.evaluate("test"), run.job.trial.method
        metrics = {
            each: {
                "score": evaluation.metrics[each],
                "interval": bootstrap_interval(_statistic(run, each), rows, seed=0),
            }
            for each in dataset.type.chosen
        }
        gap = {} if run is runs[0] else _gap([_statistic(each, metric.name) for each in (runs[0], run)], rows)
        common = {"steps": steps, "rows": rows, "cpu_minutes": round(minutes, 1), **baseline}
        fields = {"params": methods[method], "validation": scores[run], "metrics": metrics, **gap}
        emit(benchmark="tasks", task=name, method=method, **common, **fields)


def _prepared(
    config: SweepConfig, name: str, model: str
) -> tuple[engine.TaskDataset, SharedBackbone, tuple[dict[str, Any], int]]:
    """Return the tokenized task, its backbone, and the baseline with the number of test rows."""
    tokenizer, kind = engine.pretrained_tokenizer(model), TASK_TYPES[config.tasks[name].type]
    data = read_task(name, config.tasks[name], Path.cwd(), config.seed)
    labels = kind.head_size(len(data.labels))
    backbone = engine.pretrained(model, kind.name, labels=labels, quantization="none")
    data = with_token_types(data, backbone.model.config, tokenizer)
    kind = kind.configured(data.config.metrics, 0, tokenizer, data.labels, constants=data.constants)
    tables = {split: kind.tokenize(rows, tokenizer, config.training.max_length) for split, rows in data.splits.items()}
    dataset = engine.TaskDataset(
        data.config, tables, int(tokenizer.pad_token_id or 0), backbone.decoder, config.training,
        tokenizer=tokenizer, names=data.labels, constants=data.constants,
    )  # fmt: skip
    baseline = {"baseline": data.baseline, "baseline_name": f"{kind.baseline_metric} of {kind.baseline_name}"}
    return dataset, backbone, (baseline, data.splits["test"].num_rows)


def _statistic(run: engine.TrialRun, metric: str) -> Statistic:
    return partial(run.dataset.type.score_many, metric, run.evaluate("test").predictions)


def _gap(statistics: Sequence[Statistic], rows: int) -> dict[str, Any]:
    """Return how much more the first score is than the second, with its 95 % interval."""
    scores = bootstrap_jointly(statistics, rows, seed=0)
    low, high = np.quantile(scores[:, 0] - scores[:, 1], [0.025, 0.975])
    whole = np.arange(rows)[None]
    gap = float(statistics[0](whole)[0] - statistics[1](whole)[0])
    return {"gap": gap, "gap_interval": [float(low), float(high)]}


def _cpu_minutes(begin: float) -> float:
    return (time.process_time() - begin) / 60


if __name__ == "__main__":
    main()
