"""Agreement of a lane with ``transformers.Trainer``: losses in float32, scores in bfloat16.

Both start from the same adapter and head and read the same rows in the same order. Dropout and warm-up are off, since
the two count warm-up steps differently. The lane's code runs in this process, without Ray.

    python -m benchmarks.makespan --agreement

A line per method in float32 has the first and the last training loss of both sides, and
``largest_relative_loss_difference``, the largest difference of a step's losses as a fraction of the lane's first loss.
A line per method in bfloat16 has the validation ``macro_f1`` of both sides for each of five seeds,
``mean_difference``, the lane's mean minus the trainer's, and the ``standard_error`` of that difference. The last line
has ``targets_met``.
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

from benchmarks._baseline_trial import Splits, TrainingResult, add_adapter, load_backbone, tokenize_splits, train
from benchmarks._common import MINILM, emit, publish_backbone, scratch_folder
from benchmarks._fixed_trials import BATCH, METHODS, ROWS, TASK, TOKENS, Comparison, Trial, write_comparison
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks.batches import training_batches
from orchestrator.tasks.classification import ClassificationTask

SEEDS = 5
MAX_STANDARD_ERRORS = 3.0
"""With 2 instead, one of four methods would exceed it by chance in a quarter of all runs."""
MAX_RELATIVE_LOSS_DIFFERENCE = 1e-3


def compare_with_trainer(steps: int) -> None:
    """Print a line per method and precision, then a line with the largest loss difference and the targets met.

    Args:
        steps: optimizer steps of every trial.
    """
    torch.set_num_threads(1)
    with scratch_folder() as folder:
        comparison = write_comparison(folder, len(METHODS), steps)
        splits = tokenize_splits(comparison)
        dataset = _lane_dataset(splits, folder)
        file = publish_backbone(MINILM, "classification", folder)
        differences = {
            trial.method: _loss_difference(trial, comparison, splits, dataset, file) for trial in comparison.trials
        }
        agreements = {
            trial.method: _scores_agree(trial, comparison, splits, dataset, file) for trial in comparison.trials
        }
    emit(
        benchmark="makespan",
        largest_relative_loss_difference=differences,
        targets_met={
            f"losses agree to {MAX_RELATIVE_LOSS_DIFFERENCE:g} of the first loss": all(
                difference <= MAX_RELATIVE_LOSS_DIFFERENCE for difference in differences.values()
            ),
            f"mean scores agree to {MAX_STANDARD_ERRORS:g} standard errors": all(agreements.values()),
        },
    )


def _loss_difference(trial: Trial, comparison: Comparison, splits: Splits, dataset: TaskDataset, file: Path) -> float:
    """Return the largest difference between the two losses of any step, as a fraction of the first loss."""
    backbone = _load_backbone(file, torch.float32)
    run = _start_run(trial, backbone, dataset, comparison.steps, 0)
    initial_parameters = {name: parameter.detach().clone() for name, parameter in run.attached.trainable().items()}
    lane_losses = _train_on_lane(run)
    trainer_backbone = load_backbone(comparison.model, len(comparison.labels), torch.float32)
    model = add_adapter(trainer_backbone, trial.method, trial.params, 0)
    _copy_parameters(model, initial_parameters)
    trainer_losses = train(model, _without_warmup(trial), splits, comparison.steps, 0).losses
    differences = [abs(lane - trainer) for lane, trainer in zip(lane_losses, trainer_losses, strict=True)]
    largest = max(differences) / lane_losses[0]
    emit(
        benchmark="makespan",
        method=trial.method,
        dtype="float32",
        steps=comparison.steps,
        first_loss={"lane": lane_losses[0], "trainer": trainer_losses[0]},
        last_loss={"lane": lane_losses[-1], "trainer": trainer_losses[-1]},
        largest_relative_loss_difference=largest,
    )
    return largest


def _scores_agree(trial: Trial, comparison: Comparison, splits: Splits, dataset: TaskDataset, file: Path) -> bool:
    """Return whether the mean scores over seeds differ by at most ``MAX_STANDARD_ERRORS`` standard errors."""
    backbone = _load_backbone(file, torch.bfloat16)
    lane_scores = [
        _score_on_lane(_start_run(trial, backbone, dataset, comparison.steps, seed)) for seed in range(SEEDS)
    ]
    trainer_scores = [_train_with_trainer(trial, comparison, splits, seed).score for seed in range(SEEDS)]
    difference = statistics.mean(lane_scores) - statistics.mean(trainer_scores)
    error = ((statistics.variance(lane_scores) + statistics.variance(trainer_scores)) / SEEDS) ** 0.5
    emit(
        benchmark="makespan",
        method=trial.method,
        dtype="bfloat16",
        steps=comparison.steps,
        macro_f1={"lane": lane_scores, "trainer": trainer_scores},
        mean_difference=difference,
        standard_error=error,
    )
    return bool(abs(difference) <= MAX_STANDARD_ERRORS * error)


def _train_with_trainer(trial: Trial, comparison: Comparison, splits: Splits, seed: int) -> TrainingResult:
    backbone = load_backbone(comparison.model, len(comparison.labels))
    model = add_adapter(backbone, trial.method, trial.params, seed)
    return train(model, _without_warmup(trial), splits, comparison.steps, seed)


def _score_on_lane(run: TrialRun) -> float:
    _train_on_lane(run)
    return run.evaluate("validation").metrics["macro_f1"]


def _start_run(trial: Trial, backbone: SharedBackbone, dataset: TaskDataset, steps: int, seed: int) -> TrialRun:
    key = TrialKey(f"{TASK}/{trial.method}", 0)
    job = Job(trial=key, params=_without_warmup(trial), seed=seed, start=0, stop=steps, total=steps)
    return TrialRun(job, backbone, dataset, Training(max_steps=steps, max_length=TOKENS))


def _train_on_lane(run: TrialRun) -> Sequence[float]:
    """Train a run to its end, and return the loss of every step."""
    losses = []
    for _ in range(run.job.stop):
        loss = run.forward()
        torch.autograd.backward(loss)
        losses.append(loss.item())
        run.finish_step(loss)
    return losses


def _without_warmup(trial: Trial) -> dict[str, Any]:
    return {**trial.params, "warmup": 0.0}


def _copy_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Set the trainable parameters of a model.

    Raises:
        RuntimeError: if the model trains other parameters than ``values`` names.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if trainable.keys() != values.keys():
        raise RuntimeError(f"only one of the two sides trains {sorted(trainable.keys() ^ values.keys())}")
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(values[name])


def _load_backbone(file: Path, dtype: torch.dtype) -> SharedBackbone:
    return load(file, "classification", name=MINILM, dtype=dtype, labels=3)


def _lane_dataset(splits: Splits, folder: Path) -> TaskDataset:
    """Return the rows as a lane's dataset.

    A lane shuffles its training rows. They are stored in the inverse of that permutation, so that the lane reads them
    in the same order as ``Trainer``.
    """
    tables = {split: _table(*columns) for split, columns in splits.items()}
    count = tables["train"].num_rows
    batches = training_batches(np.full(count, TOKENS), np.arange(count), 0, BATCH, 0, count // BATCH)
    positions = np.argsort(np.concatenate(list(batches)))
    tables["train"] = _table(*(column[positions] for column in splits["train"]))
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
