"""Start-up time of a trial on a warm lane, for every method: attaching it, and its first step of 8 x 32 tokens.

    python -m benchmarks.trial_start

Measured on NF4 MiniLM, on one core, in this process without Ray. A line per method, with medians over the repeats after
a warm-up, in wall seconds:

- ``attach_seconds``: attaching the method to the loaded backbone.
- ``first_step_seconds``: from receiving the job to the end of its first training step; includes attaching.

A method that cannot train an encoder has ``refused``, the reason, instead. The last line has the largest of each over
the other methods.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

import methods
import search_spaces
from benchmarks._common import (
    MINILM,
    argument_parser,
    emit,
    load_shared_backbone,
    restart_with_lane_heap,
    scratch_folder,
)
from methods.base.spec import MethodError
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
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="measurements per method (default: %(default)s)")
    repeats = parser.parse_args().repeats
    restart_with_lane_heap()
    torch.set_num_threads(1)
    with scratch_folder() as folder:
        backbone, dataset = load_shared_backbone(MINILM, "classification", folder), random_dataset(folder)
        medians = []
        for name in methods.names():
            try:
                medians.append(measure_start(name, backbone, dataset, repeats))
            except MethodError as error:  # hard_prompt needs a language model
                emit(benchmark="trial_start", method=name, refused=str(error))
    emit(
        benchmark="trial_start",
        worst_attach_seconds=max(attach for attach, _ in medians),
        worst_first_step_seconds=max(first_step for _, first_step in medians),
    )


def measure_start(name: str, backbone: SharedBackbone, dataset: TaskDataset, repeats: int) -> tuple[float, float]:
    """Return the median seconds to attach a method, and to the end of a trial's first step."""
    attach_seconds, first_step_seconds = [], []
    params = {**search_spaces.get(name).default, "batch_size": BATCH}
    for number in range(repeats + 1):
        job = Job(trial=TrialKey(f"task/{name}", number), params=params, seed=number, start=0, stop=10, total=10)
        start = time.perf_counter()
        run = TrialRun(job, backbone, dataset, Training())
        loss = run.forward()
        loss.backward()
        run.finish_step(loss)
        first_step_seconds.append(time.perf_counter() - start)
        attach_seconds.append(run.measurements["attach_seconds"])
    medians = statistics.median(attach_seconds[1:]), statistics.median(first_step_seconds[1:])
    emit(benchmark="trial_start", method=name, attach_seconds=medians[0], first_step_seconds=medians[1])
    return medians


def random_dataset(folder: Path) -> TaskDataset:
    """Return a dataset of random rows of exactly ``TOKENS`` tokens."""
    random = np.random.default_rng(0)
    tokens = pa.array(random.integers(1000, 20000, (ROWS, TOKENS)).astype(np.int32).tolist(), pa.list_(pa.int32()))
    labels = pa.array(random.integers(0, 3, ROWS).astype(np.int32))
    table = pa.table({"row": pa.array(np.arange(ROWS)), "input_ids": tokens, "label": labels})
    task = ClassificationTask(type="classification", data="rows.csv", text="text", label="label")
    tables = dict.fromkeys(("train", "validation", "test"), table)
    return TaskDataset(task, tables, 0, False, Training(), 0, Storage.at(str(folder)))


if __name__ == "__main__":
    main()
