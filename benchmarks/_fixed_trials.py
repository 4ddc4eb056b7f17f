"""A fixed set of trials that several training systems ("sides") run: rows, their order, methods and parameters.

The rows are real tweets to airlines of at least :data:`TOKENS` tokens, truncated to that length, so that every batch of
every side has exactly ``BATCH x TOKENS`` tokens. Four methods have the same number of trials, which differ in their
learning rates. No trial is stopped early.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from pyarrow import parquet

import search_spaces
from benchmarks._common import MINILM
from orchestrator.backbone.source import resolve
from orchestrator.config import BackboneConfig, load_config
from orchestrator.tasks import read_task
from orchestrator.tasks.batches import training_batches

TOKENS, BATCH = 32, 8
ROWS = {"validation": 256, "test": 64}
SEED = 0
TASK = "airline"
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "airline.yaml"
METHODS: Mapping[str, Mapping[str, Any]] = {
    "lora": {"learning_rate": 2e-3},
    "ia3": {"learning_rate": 1e-2},
    "prefix": {"learning_rate": 1e-2, "init": "random"},
    "prompt": {"learning_rate": 3e-2, "init": "random"},
}
"""Methods that `peft` implements on all sides, with the parameters that differ from their search space's default."""


@dataclass(frozen=True)
class Trial:
    """A training run that is the same on every side.

    Args:
        method: key of ``METHODS``.
        params: value of every parameter of the method's search space.
    """

    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The work of every side.

    Args:
        model: folder of the checkpoint.
        data: folder of ``train.parquet`` and ``validation.parquet``, with the columns ``text`` and ``label``.
        labels: names of the classes.
        steps: optimizer steps of every trial.
        order: indices of training rows in the order in which every trial reads them, ``steps * BATCH`` of them.
        trials: trials of all methods.
    """

    model: str
    data: str
    labels: tuple[str, ...]
    steps: int
    order: tuple[int, ...]
    trials: tuple[Trial, ...]

    def write(self, file: Path) -> Path:
        """Write the comparison as JSON, for the process of a side, and return the file."""
        file.write_text(json.dumps(asdict(self)))
        return file

    @classmethod
    def read(cls, file: Path) -> Comparison:
        """Read a file of :meth:`write`."""
        values = json.loads(file.read_text())
        trials = tuple(Trial(**fields) for fields in values.pop("trials"))
        return cls(**{**values, "labels": tuple(values["labels"]), "order": tuple(values["order"])}, trials=trials)


def write_comparison(folder: Path, trials: int, steps: int) -> Comparison:
    """Write the rows into ``folder`` and return the comparison.

    Args:
        folder: folder for the rows.
        trials: number of trials, a multiple of the number of methods.
        steps: optimizer steps of every trial.

    Raises:
        ValueError: if ``trials`` is not a multiple of the number of methods.
    """
    if trials < 1 or trials % len(METHODS):
        raise ValueError(
            f"{trials} trials are not a multiple of {len(METHODS)}, the number of methods; write a multiple"
        )
    source = resolve(BackboneConfig(model=MINILM), Path.cwd())
    labels, rows = _write_rows(folder, source.tokenizer())
    batches = training_batches(np.full(rows, TOKENS), np.arange(rows), SEED, BATCH, 0, steps)
    return Comparison(
        model=str(source.path),
        data=str(folder),
        labels=labels,
        steps=steps,
        order=tuple(int(row) for batch in batches for row in batch),
        trials=tuple(
            Trial(method, params) for method in METHODS for params in parameters(method, trials // len(METHODS))
        ),
    )


def write_sweep_file(comparison: Comparison, folder: Path) -> Path:
    """Write a sweep configuration with the trials of a comparison, and return the file.

    Its search spaces have one point per trial, and its only rung is the last step, so that no trial is stopped early.
    """
    points: dict[str, list[Mapping[str, Any]]] = {}
    for trial in comparison.trials:
        points.setdefault(trial.method, []).append(trial.params)
    config = {
        "name": "makespan",
        "backbone": {"model": MINILM, "quantization": "nf4"},
        "tasks": {
            TASK: {
                "type": "classification",
                "data": {split: f"{comparison.data}/{split}.parquet" for split in ("train", "validation", "test")},
                "text": "text",
                "label": "label",
            }
        },
        "methods": list(points),
        "search_space": {method: _space_overrides(method_points) for method, method_points in points.items()},
        "budget": {"trials": len(comparison.trials)},
        "training": {"max_steps": comparison.steps, "max_length": TOKENS, "validation_rows": ROWS["validation"]},
        "search": {"sampler": "grid", "allocation": "round_robin", "early_stopping": False, "first_rung": 1.0},
        "selection": {"seeds": 1, "contenders": 1},
        "seed": SEED,
    }
    file = folder / "makespan.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


def parameters(method: str, count: int) -> list[dict[str, Any]]:
    """Return ``count`` configurations, from half to twice the method's learning rate, evenly on the log scale."""
    params = {**search_spaces.get(method).default, **METHODS[method], "batch_size": BATCH, "weight_decay": 0.0}
    factors = np.geomspace(0.5, 2.0, count) if count > 1 else [1.0]
    return [{**params, "learning_rate": float(f"{params['learning_rate'] * factor:.5g}")} for factor in factors]


def _space_overrides(points: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return overrides that restrict a search space to these points."""
    learning_rates = [point["learning_rate"] for point in points]
    fixed_values = {name: {"value": value} for name, value in points[0].items()}
    return {**fixed_values, "learning_rate": {"choices": learning_rates}}


def _write_rows(folder: Path, tokenizer: Any) -> tuple[tuple[str, ...], int]:
    """Write the rows of every split, and return the classes and the number of training rows."""
    config = load_config(EXAMPLE)
    data = read_task(TASK, config.tasks[TASK], config.base, SEED)
    count = 0
    for split, rows in data.splits.items():
        texts = rows["text"].to_pylist()
        indices = [index for index, ids in enumerate(tokenizer(texts)["input_ids"]) if len(ids) >= TOKENS]
        sample = rows.take(pa.array(np.random.default_rng(SEED).permutation(indices)[: ROWS.get(split)]))
        labels = [data.labels[code] for code in sample["label"].to_pylist()]
        parquet.write_table(pa.table({"text": sample["text"], "label": pa.array(labels)}), folder / f"{split}.parquet")
        count = len(indices) if split == "train" else count
    return data.labels, count
