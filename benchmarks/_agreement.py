"""Whether a lane trains what ``transformers.Trainer`` trains: the same losses in float32, like scores in bfloat16.

Both begin with the same adapter and head and see the same rows in the same order, without dropout or warm-up (the two
count its steps differently). The lane's code runs in this process, without Ray.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from benchmarks._baseline_trial import Rows, Trained, load_backbone, tokenized, train, with_adapter
from benchmarks._common import MINILM, emit, published, scratch
from benchmarks._fixed_trials import BATCH, METHODS, ROWS, TASK, TOKENS, Comparison, Trial, comparison
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks.batches import training_batches
from orchestrator.tasks.classification import ClassificationTask

SEEDS = 5
ERRORS = 3.0  # with two, one method of four would be apart by chance in a quarter of all calls
CLOSE = 1e-3


def agreement(steps: int) -> None:
    """Print a line for each method in float32, one for the scores in bfloat16, and what holds of them."""
    torch.set_num_threads(1)
    with scratch() as folder:
        asked = comparison(folder, len(METHODS), steps)
        rows = tokenized(asked)
        own = _task_rows(rows, folder)
        file = published(MINILM, "classification", folder)
        largest = {trial.method: _losses_apart(trial, asked, rows, own, file) for trial in asked.trials}
        verdicts = {trial.method: _scores_alike(trial, asked, rows, own, file) for trial in asked.trials}
    emit(
        benchmark="makespan",
        largest_loss_difference=largest,
        reached={
            f"losses agree to {CLOSE:g}": all(difference <= CLOSE for difference in largest.values()),
            "scores lie within the spread over seeds": all(verdicts.values()),
        },
    )


def _losses_apart(trial: Trial, asked: Comparison, rows: Rows, own: TaskDataset, file: Path) -> float:
    """The largest difference between the losses of any step, relative to the first loss."""
    backbone = _shared(file, torch.float32)
    run = _run(trial, backbone, own, asked.steps, 0)
    begin = {name: parameter.detach().clone() for name, parameter in run.attached.trainable().items()}
    ours = _train(run)
    loaded = load_backbone(asked.model, len(asked.labels), torch.float32)
    model = with_adapter(loaded, trial.method, trial.params, 0)
    _begin_with(model, begin)
    theirs = train(model, _plain(trial), rows, asked.steps, 0).losses
    largest = max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / ours[0]
    emit(
        benchmark="makespan",
        method=trial.method,
        dtype="float32",
        steps=asked.steps,
        first_loss=[ours[0], theirs[0]],
        last_loss=[ours[-1], theirs[-1]],
        largest_loss_difference=largest,
    )
    return largest


def _scores_alike(trial: Trial, asked: Comparison, rows: Rows, own: TaskDataset, file: Path) -> bool:
    """Whether the sides' mean scores over seeds are no further apart than ``ERRORS`` standard errors."""
    backbone = _shared(file, torch.bfloat16)
    ours = [_scored(_run(trial, backbone, own, asked.steps, seed)) for seed in range(SEEDS)]
    theirs = [_theirs(trial, asked, rows, seed).score for seed in range(SEEDS)]
    difference = statistics.mean(ours) - statistics.mean(theirs)
    error = ((statistics.variance(ours) + statistics.variance(theirs)) / SEEDS) ** 0.5
    emit(
        benchmark="makespan",
        method=trial.method,
        dtype="bfloat16",
        steps=asked.steps,
        scores={"lane": ours, "trainer": theirs},
        difference=difference,
        standard_error=error,
    )
    return bool(abs(difference) <= ERRORS * error)


def _theirs(trial: Trial, asked: Comparison, rows: Rows, seed: int) -> Trained:
    backbone = load_backbone(asked.model, len(asked.labels))
    return train(with_adapter(backbone, trial.method, trial.params, seed), _plain(trial), rows, asked.steps, seed)


def _scored(run: TrialRun) -> float:
    _train(run)
    return run.evaluate("validation").metrics["macro_f1"]


def _run(trial: Trial, backbone: SharedBackbone, rows: TaskDataset, steps: int, seed: int) -> TrialRun:
    key = TrialKey(f"{TASK}/{trial.method}", 0)
    job = Job(trial=key, params=_plain(trial), seed=seed, start=0, stop=steps, total=steps)
    return TrialRun(job, backbone, rows, Training(max_steps=steps, max_length=TOKENS))


def _train(run: TrialRun) -> Sequence[float]:
    losses = []
    for _ in range(run.job.stop):
        loss = run.forward()
        torch.autograd.backward(loss)
        losses.append(loss.item())
        run.finish_step(loss)
    return losses


def _plain(trial: Trial) -> dict[str, Any]:
    return {**trial.params, "warmup": 0.0}


def _begin_with(model: nn.Module, begin: Mapping[str, Tensor]) -> None:
    """Give a model the adapter and head of another.

    Raises:
        RuntimeError: if they do not train the same parameters.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if trainable.keys() != begin.keys():
        raise RuntimeError(f"one side alone trains {sorted(trainable.keys() ^ begin.keys())}")
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(begin[name])


def _shared(file: Path, dtype: torch.dtype) -> SharedBackbone:
    return load(file, "classification", name=MINILM, dtype=dtype, labels=3)


def _task_rows(rows: Rows, folder: Path) -> TaskDataset:
    """The rows as a lane has them. Those for training are put where the lane's own order looks for them."""
    tables = {split: _table(*columns) for split, columns in rows.items()}
    count = tables["train"].num_rows
    batches = training_batches(np.full(count, TOKENS), np.arange(count), 0, BATCH, 0, count // BATCH)
    places = np.argsort(np.concatenate(list(batches)))
    tables["train"] = _table(*(column[places] for column in rows["train"]))
    task = ClassificationTask(type="classification", data="rows.csv", text="text", label="label")
    training = Training(max_length=TOKENS, validation_rows=ROWS["validation"])
    return TaskDataset(task, tables, 0, False, training, 0, Storage.at(str(folder)))


def _table(ids: Any, labels: Any) -> pa.Table:
    columns = {
        "row": pa.array(np.arange(len(labels))),
        "input_ids": pa.array(ids.astype(np.int32).tolist(), pa.list_(pa.int32())),
        "label": pa.array(labels, pa.int32()),
    }
    return pa.table(columns)
