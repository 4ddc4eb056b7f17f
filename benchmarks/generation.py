"""Generation of eight trials in one pass over SmolLM2 against one by one, in tokens per second.

    OMP_NUM_THREADS=1 python -m benchmarks.generation

Prints one JSON object a line: a pack and its trials one by one, each measured in turn, and whether all texts are the
same. Seconds are processor time of one thread, which does not count what else the machine does.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from benchmarks._common import SMOLLM2, argument_parser, emit, load_shared_backbone, scratch_folder
from orchestrator.backbone.source import resolve
from orchestrator.config import BackboneConfig, Training
from orchestrator.engine.step import score_trials
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun

METHODS = ("lora", "prompt", "prefix", "ia3", "adapter", "dora", "norm_tuning", "adalora")
PROMPTS = [
    ("The capital of France is", " Paris"),
    ("Write one sentence about rain:", " It falls."),
    ("2, 4, 6, 8,", " 10"),
    ("A good breakfast has", " eggs"),
    ("The opposite of large is", " small"),
    ("Dear team, I am writing to", " ask"),
    ("In the year 1969 the first", " people landed"),
    ("My favourite book is about", " the sea"),
]


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--new-tokens", type=int, default=24, help="most tokens of a text")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each kind, in turn")
    arguments = parser.parse_args()
    with scratch_folder() as folder:
        _measure(_trials(folder, arguments.new_tokens), arguments.repeats)


def _trials(folder: Path, new_tokens: int) -> list[TrialRun]:
    """Return a trial of each method, whose adapters differ from the bare backbone."""
    backbone = load_shared_backbone(SMOLLM2, "causal-lm", folder)
    tokenizer = resolve(BackboneConfig(model=SMOLLM2), Path.cwd()).tokenizer()
    training = Training(max_length=64)
    rows = TaskDataset.from_examples(backbone, tokenizer, dict.fromkeys(("train", "validation"), PROMPTS), training)
    changes = {"metric": "exact_match", "max_new_tokens": new_tokens}
    config = rows._config.model_copy(update=changes)
    dataset = TaskDataset(config, rows._tables, rows.pad, rows.decoder, training, tokenizer=tokenizer)
    runs = []
    for number, method in enumerate(METHODS):
        run = TrialRun.start(method, backbone, dataset, steps=1, params={"batch_size": 8}, seed=number)
        run.job = replace(run.job, split="validation")
        with torch.no_grad():
            for parameter in run.parameters:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 1e-3)
        runs.append(run)
    return runs


def _measure(runs: list[TrialRun], repeats: int) -> None:
    seconds: dict[str, list[float]] = {"packed": [], "one_by_one": []}
    texts: dict[str, list[Any]] = {}
    for _ in range(repeats):
        for kind in seconds:
            for run in runs:
                run._evaluations.clear()
            begin = time.process_time()
            if kind == "packed":
                score_trials(runs)
            predictions: list[pa.Table] = [run.evaluate("validation").predictions for run in runs]
            seconds[kind].append(time.process_time() - begin)
            texts[kind] = [table["generated"].to_pylist() for table in predictions]
    tokenizer = runs[0].dataset.type.tokenizer
    assert tokenizer is not None
    tokens = sum(len(ids) for trial in texts["packed"] for ids in tokenizer(trial)["input_ids"])
    best = {kind: min(values) for kind, values in seconds.items()}
    for kind, value in best.items():
        emit(
            kind=kind,
            trials=len(runs),
            prompts=len(PROMPTS),
            tokens=tokens,
            seconds=round(value, 2),
            tokens_per_second=round(tokens / value, 1),
        )
    same = texts["packed"] == texts["one_by_one"]
    emit(times_faster=round(best["one_by_one"] / best["packed"], 2), texts_identical=same)


if __name__ == "__main__":
    main()
