"""The same trials for every side of a comparison: which rows, which methods, which parameters.

The rows are real tweets to airlines of at least :data:`TOKENS` tokens, which are cut there, so that every batch of
every side is of exactly ``BATCH x TOKENS``. The parameters are fixed, four methods in equal parts that differ in their
learning rates, and nothing is stopped early.
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
"""Every one is `peft`'s on all sides; what differs from the search space's default is said here."""


@dataclass(frozen=True)
class Trial:
    """One training, the same on every side.

    Args:
        method: a key of ``METHODS``.
        params: everything that its search space searches.
    """

    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What all sides are to do.

    Args:
        model: folder of the checkpoint.
        data: the folder of ``train.parquet`` and ``validation.parquet``, with the columns ``text`` and ``label``.
        labels: the classes.
        steps: optimizer steps of a trial.
        order: rows of the training split in the order in which every trial sees them, ``steps * BATCH`` of them.
        trials: all of them.
    """

    model: str
    data: str
    labels: tuple[str, ...]
    steps: int
    order: tuple[int, ...]
    trials: tuple[Trial, ...]

    def write(self, file: Path) -> Path:
        """For a process of another side."""
        file.write_text(json.dumps(asdict(self)))
        return file

    @classmethod
    def read(cls, file: Path) -> Comparison:
        """The inverse of :meth:`write`."""
        values = json.loads(file.read_text())
        trials = tuple(Trial(**one) for one in values.pop("trials"))
        return cls(**{**values, "labels": tuple(values["labels"]), "order": tuple(values["order"])}, trials=trials)


def comparison(folder: Path, trials: int, steps: int) -> Comparison:
    """Write the rows into ``folder`` and say what is to be done.

    Args:
        folder: where the rows go.
        trials: a multiple of the number of methods.
        steps: of each.

    Raises:
        ValueError: if the methods cannot have equal parts.
    """
    if trials < 1 or trials % len(METHODS):
        raise ValueError(f"{trials} trials cannot be shared by {len(METHODS)} methods; write a multiple of that")
    source = resolve(BackboneConfig(model=MINILM), Path.cwd())
    labels, rows = _write_rows(folder, source.tokenizer())
    batches = training_batches(np.full(rows, TOKENS), np.arange(rows), SEED, BATCH, 0, steps)
    return Comparison(
        model=str(source.path),
        data=str(folder),
        labels=labels,
        steps=steps,
        order=tuple(int(row) for batch in batches for row in batch),
        trials=tuple(Trial(method, one) for method in METHODS for one in parameters(method, trials // len(METHODS))),
    )


def sweep_file(asked: Comparison, folder: Path) -> Path:
    """The comparison as a sweep: one rung at the end, so that nobody is stopped; spaces with one point per trial."""
    points: dict[str, list[Mapping[str, Any]]] = {}
    for trial in asked.trials:
        points.setdefault(trial.method, []).append(trial.params)
    config = {
        "name": "makespan",
        "backbone": {"model": MINILM, "quantization": "nf4"},
        "tasks": {
            TASK: {
                "type": "classification",
                "data": {split: f"{asked.data}/{split}.parquet" for split in ("train", "validation", "test")},
                "text": "text",
                "label": "label",
            }
        },
        "methods": list(points),
        "search_space": {method: _listed(own) for method, own in points.items()},
        "budget": {"trials": len(asked.trials)},
        "training": {"max_steps": asked.steps, "max_length": TOKENS, "validation_rows": ROWS["validation"]},
        "search": {"sampler": "grid", "allocation": "round_robin", "early_stopping": False, "first_rung": 1.0},
        "selection": {"seeds": 1, "contenders": 1},
        "seed": SEED,
    }
    file = folder / "makespan.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


def parameters(method: str, count: int) -> list[dict[str, Any]]:
    """From half to twice the method's learning rate, evenly on the log scale."""
    own = {**search_spaces.get(method).default, **METHODS[method], "batch_size": BATCH, "weight_decay": 0.0}
    factors = np.geomspace(0.5, 2.0, count) if count > 1 else [1.0]
    return [{**own, "learning_rate": float(f"{own['learning_rate'] * factor:.5g}")} for factor in factors]


def _listed(points: list[Mapping[str, Any]]) -> dict[str, Any]:
    """As overrides of a search space."""
    throughput = [point["learning_rate"] for point in points]
    single = {name: {"value": value} for name, value in points[0].items()}
    return {**single, "learning_rate": {"choices": throughput}}


def _write_rows(folder: Path, tokenizer: Any) -> tuple[tuple[str, ...], int]:
    """Returns the classes and the number of training rows."""
    config = load_config(EXAMPLE)
    found = read_task(TASK, config.tasks[TASK], config.base, SEED)
    count = 0
    for split, rows in found.splits.items():
        texts = rows["text"].to_pylist()
        kept = [place for place, ids in enumerate(tokenizer(texts)["input_ids"]) if len(ids) >= TOKENS]
        taken = rows.take(pa.array(np.random.default_rng(SEED).permutation(kept)[: ROWS.get(split)]))
        labels = [found.labels[code] for code in taken["label"].to_pylist()]
        parquet.write_table(pa.table({"text": taken["text"], "label": pa.array(labels)}), folder / f"{split}.parquet")
        count = len(kept) if split == "train" else count
    return found.labels, count
