"""Trials on random rows, and the CPU time of their steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import search_spaces
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.step import train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks.classification import ClassificationTask

STEPS = 10**6
VOCABULARY = 4000


def random_dataset(tokens: int, count: int, folder: Path) -> TaskDataset:
    """Return a dataset with ``count`` rows of exactly ``tokens`` random tokens in every split."""
    random = np.random.default_rng(0)
    tables = {}
    for split in ("train", "validation", "test"):
        ids = random.integers(1000, VOCABULARY, (count, tokens)).astype(np.int32)
        columns = {"row": np.arange(count), "input_ids": pa.array(ids.tolist(), pa.list_(pa.int32()))}
        tables[split] = pa.table({**columns, "label": random.integers(0, 3, count).astype(np.int32)})
    task = ClassificationTask(type="classification", data="rows.csv", text="text", label="label")
    return TaskDataset(task, tables, 0, False, Training(), 0, Storage.at(str(folder)))


def start_run(
    method: str,
    number: int,
    batch: int,
    backbone: SharedBackbone,
    dataset: TaskDataset,
    params: Mapping[str, Any] | None = None,
    prefix: FrozenPrefix | None = None,
) -> TrialRun:
    """Start a trial of a method.

    Args:
        method: name of the method.
        number: number and seed of the trial.
        batch: rows of a batch.
        backbone: frozen backbone.
        dataset: training and validation rows.
        params: parameters that replace those of the method's default configuration.
        prefix: cache of the lower blocks' activations; every block is computed at every step if left out.
    """
    default = {} if ":" in method else search_spaces.get(method).default
    values = {**default, **(params or {}), "batch_size": batch}
    job = Job(trial=TrialKey(f"task/{method}", number), params=values, seed=number, start=0, stop=STEPS, total=STEPS)
    return TrialRun(job, backbone, dataset, Training(), prefix=prefix)


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the CPU seconds of this thread in a call, which other load on the machine hardly changes."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def step_all(runs: Sequence[TrialRun], pack_size: int, joint: bool | None = None) -> None:
    """Take a step of every trial, in packs of ``pack_size``.

    Raises:
        RuntimeError: if a trial failed.
    """
    for first in range(0, len(runs), pack_size):
        if failures := train_step(runs[first : first + pack_size], joint=joint):
            raise RuntimeError(f"{failures[0][0].job.trial} failed") from failures[0][1]
