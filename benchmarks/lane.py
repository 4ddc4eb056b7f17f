"""How fast a warm lane turns to a new trial: attaching its method, and its first finished step of 8 x 32 tokens.

Prints the median over repeats for every method on the real NF4 encoder, on one core, and last the worst of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

import methods
import search_spaces
from benchmarks._common import MINILM, as_a_lane, attached_backbone, emit, scratch
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks.classification import ClassificationTask

ROWS, TOKENS, BATCH = 256, 32, 8


def main() -> None:
    """Measure every method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    as_a_lane()
    torch.set_num_threads(1)
    with scratch() as folder:
        backbone, rows = attached_backbone(MINILM, "classification", folder), random_rows(folder)
        found = [measure(name, backbone, rows, repeats) for name in methods.names()]
    emit(
        benchmark="lane",
        worst_attach_seconds=max(attach for attach, _ in found),
        worst_first_step_seconds=max(first for _, first in found),
    )


def measure(name: str, backbone: SharedBackbone, rows: TaskDataset, repeats: int) -> tuple[float, float]:
    """Median seconds to attach, and from receiving the job to the end of its first step."""
    attach, first = [], []
    params = {**search_spaces.get(name).default, "batch_size": BATCH}
    for number in range(repeats + 1):
        job = Job(trial=TrialKey(f"task/{name}", number), params=params, seed=number, start=0, stop=10, total=10)
        begin = time.perf_counter()
        run = TrialRun(job, backbone, rows, Training())
        loss = run.forward()
        loss.backward()
        run.finish_step(loss)
        first.append(time.perf_counter() - begin)
        attach.append(run.measurements["attach_seconds"])
    medians = statistics.median(attach[1:]), statistics.median(first[1:])
    emit(benchmark="lane", method=name, attach_seconds=medians[0], first_step_seconds=medians[1])
    return medians


def random_rows(folder: Path) -> TaskDataset:
    """Rows of exactly ``TOKENS`` tokens."""
    random = np.random.default_rng(0)
    tokens = pa.array(random.integers(1000, 20000, (ROWS, TOKENS)).astype(np.int32).tolist(), pa.list_(pa.int32()))
    labels = pa.array(random.integers(0, 3, ROWS).astype(np.int32))
    table = pa.table({"row": pa.array(np.arange(ROWS)), "input_ids": tokens, "label": labels})
    task = ClassificationTask(type="classification", data="rows.csv", text="text", label="label")
    tables = dict.fromkeys(("train", "validation", "test"), table)
    return TaskDataset(task, tables, 0, False, Training(), 0, Storage.at(str(folder)))


if __name__ == "__main__":
    main()
