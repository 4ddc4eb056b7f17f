"""Trials on random rows, and their steps in processor time, side by side."""

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


def rows_of(tokens: int, count: int, folder: Path) -> TaskDataset:
    """So many rows of exactly so many tokens in every split."""
    random = np.random.default_rng(0)
    tables = {}
    for split in ("train", "validation", "test"):
        ids = random.integers(1000, VOCABULARY, (count, tokens)).astype(np.int32)
        columns = {"row": np.arange(count), "input_ids": pa.array(ids.tolist(), pa.list_(pa.int32()))}
        tables[split] = pa.table({**columns, "label": random.integers(0, 3, count).astype(np.int32)})
    task = ClassificationTask(type="classification", data="rows.csv", text="text", label="label")
    return TaskDataset(task, tables, 0, False, Training(), 0, Storage.at(str(folder)))


def begin(
    method: str,
    number: int,
    batch: int,
    backbone: SharedBackbone,
    rows: TaskDataset,
    params: Mapping[str, Any] | None = None,
    prefix: FrozenPrefix | None = None,
) -> TrialRun:
    """A fresh trial of a method in its default configuration, but for ``params``."""
    default = {} if ":" in method else search_spaces.get(method).default
    chosen = {**default, **(params or {}), "batch_size": batch}
    job = Job(trial=TrialKey(f"task/{method}", number), params=chosen, seed=number, start=0, stop=STEPS, total=STEPS)
    return TrialRun(job, backbone, rows, Training(), prefix=prefix)


def seconds_of(call: Callable[[], object]) -> float:
    """Of this thread's processor, which its neighbours on the machine do not lengthen as they do the wall's time."""
    begin = time.thread_time()
    call()
    return time.thread_time() - begin


def stepped(runs: Sequence[TrialRun], size: int) -> None:
    """One step of every trial, in groups of a size.

    Raises:
        RuntimeError: if a trial failed.
    """
    for first in range(0, len(runs), size):
        if failed := train_step(runs[first : first + size]):
            raise RuntimeError(f"{failed[0][0].job.trial} failed") from failed[0][1]
