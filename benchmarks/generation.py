"""Generation of eight trials in one pass over SmolLM2 against one by one, in tokens per second.

    OMP_NUM_THREADS=1 python -m benchmarks.generation

Measures a pack and its trials one by one in turn, round after round, until ``--seconds`` have passed, and prints one
JSON object a line: each round as it ends, and the medians at last, with whether all texts are the same. ``seconds`` are
processor time of the one thread that computes, which does not count what else the machine does; ``wall_seconds`` do.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from benchmarks._common import SMOLLM2, argument_parser, emit
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.pretrained import pretrained, pretrained_tokenizer
from orchestrator.config import Training
from orchestrator.engine.step import score_trials, train_step
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
KINDS = ("packed", "one_by_one")


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--new-tokens", type=int, default=24, help="most tokens of a text")
    parser.add_argument("--seconds", type=float, default=150, help="wall time after which no round begins")
    parser.add_argument("--methods", default=",".join(METHODS), help="methods of the trials, with commas between them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.monotonic()
    runs = _trials(arguments.methods.split(","), arguments.new_tokens)
    emit(prepared=len(runs), wall_seconds=round(time.monotonic() - begin, 1))
    rounds: list[dict[str, float]] = []
    while not rounds or time.monotonic() - begin < arguments.seconds:
        rounds.append(_round(runs))
        emit(round=len(rounds), **rounds[-1])
    emit(
        trials=len(runs),
        prompts=len(PROMPTS),
        rounds=len(rounds),
        **{f"{kind}_tokens_per_second": round(_median(rounds, f"{kind}_tokens_per_second"), 1) for kind in KINDS},
        times_faster=round(_median(rounds, "times_faster"), 2),
        texts_identical=all(entry["texts_identical"] for entry in rounds),
    )


def _trials(methods: list[str], new_tokens: int) -> list[TrialRun]:
    """Return a trial of each method after one step, with parameters that differ from those of other trials."""
    backbone = pretrained(SMOLLM2, "causal-lm", dtype=compute_dtype("auto", torch.device("cpu")))
    tokenizer = pretrained_tokenizer(SMOLLM2)
    training = Training(max_length=64)
    rows = TaskDataset.from_examples(backbone, tokenizer, dict.fromkeys(("train", "validation"), PROMPTS), training)
    changes = {"metric": "exact_match", "max_new_tokens": new_tokens}
    config = rows._config.model_copy(update=changes)
    dataset = TaskDataset(config, rows._tables, rows.pad, rows.decoder, training, tokenizer=tokenizer)
    runs = []
    for number, method in enumerate(methods):
        run = TrialRun.start(method, backbone, dataset, steps=1, params={"batch_size": 8}, seed=number)
        run.job = replace(run.job, split="validation")
        runs.append(run)
    for _, error in train_step(runs):
        raise error
    for number, run in enumerate(runs):
        with torch.no_grad():
            for parameter in run.parameters:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 1e-3)
    return runs


def _round(runs: list[TrialRun]) -> dict[str, float]:
    """Measure both kinds once, each from trials without an evaluation."""
    entry: dict[str, float] = {}
    texts: dict[str, list[Any]] = {}
    tokenizer = runs[0].dataset.type.tokenizer
    assert tokenizer is not None
    for kind in KINDS:
        for run in runs:
            run._evaluations.clear()
        begin, wall = time.thread_time(), time.monotonic()
        if kind == "packed":
            score_trials(runs)
        texts[kind] = [run.evaluate("validation").predictions["generated"].to_pylist() for run in runs]
        seconds = time.thread_time() - begin
        tokens = sum(len(ids) for trial in texts[kind] for ids in tokenizer(trial)["input_ids"])
        entry[f"{kind}_seconds"] = round(seconds, 2)
        entry[f"{kind}_wall_seconds"] = round(time.monotonic() - wall, 1)
        entry[f"{kind}_tokens_per_second"] = tokens / seconds
    entry["times_faster"] = entry["packed_tokens_per_second"] / entry["one_by_one_tokens_per_second"]
    entry["texts_identical"] = texts["packed"] == texts["one_by_one"]
    return entry


def _median(rounds: list[dict[str, float]], name: str) -> float:
    return statistics.median(entry[name] for entry in rounds)


if __name__ == "__main__":
    main()
