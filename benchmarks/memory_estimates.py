"""Estimated peak memory of a trial, against the measured one.

    python -m benchmarks.memory_estimates

SmolLM2-135M in NF4, as a classifier and as a language model; every method of the demo in its default configuration, at
several batch shapes (rows x tokens). The measurement is that of a lane: the largest amount of memory that the C
library has allocated above its level before the trial, over two steps in a warm process. A line per case has
``estimated_bytes``, ``measured_bytes``, and ``ratio``, the estimate over the measurement. The last line has
``worst_ratio``, the largest ratio or inverse ratio of the ``cases`` that measured above 200 MB; 1 is exact.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import methods
import search_spaces
from benchmarks._common import SMOLLM2, argument_parser, emit, load_shared_backbone, scratch_folder
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.source import resolve
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import BackboneConfig, Training
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.planning.estimates import Batch, StepModel
from orchestrator.tasks import TASK_TYPES
from orchestrator.tasks.causal_lm import CausalLMTask
from orchestrator.tasks.classification import ClassificationTask
from orchestrator.tasks.tokens import token_column

METHODS = ("lora", "ia3", "adapter", "prefix", "prompt", "linear_probe", "last_layers", "full")
SHAPES = ((4, 32), (4, 96), (8, 64), (16, 96))
LABELS, TARGETS, ROWS, STEPS = 3, 4, 64, 2
SMALLEST_COUNTED_BYTES = 200e6


def main() -> None:
    """Estimate and measure every case."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, metavar="METHOD", help="methods to measure (default: %(default)s)"
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=sorted(TASK_TYPES),
        choices=sorted(TASK_TYPES),
        help="task types to measure (default: all)",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with scratch_folder() as folder:
        ratios = [ratio for task in arguments.tasks for ratio in compare(task, arguments.methods, folder)]
    emit(benchmark="memory_estimates", cases=len(ratios), worst_ratio=max(max(ratio, 1 / ratio) for ratio in ratios))


def compare(task: str, names: list[str], folder: Path) -> Iterator[float]:
    """Estimate and measure every method at every shape, and yield the ratios of the cases that are large enough."""
    backbone, model = load_shared_backbone(SMOLLM2, task, folder), step_model(task)
    for name in (name for name in names if TASK_TYPES[task].peft_task_type in methods.get(name).tasks):
        for rows, tokens in SHAPES:
            params = {**search_spaces.get(name).default, "batch_size": rows}
            cost = model.cost(name, params, Batch(rows=rows, tokens=tokens, targets=TARGETS))
            measured = measure_peak_bytes(name, params, backbone, random_dataset(task, tokens, backbone, folder))
            if cost is None:
                raise RuntimeError(f"there is no estimate for {name}")
            ratio = cost.peak_bytes / measured
            shape = {"task": task, "method": name, "rows": rows, "tokens": tokens}
            emit(
                benchmark="memory_estimates",
                **shape,
                estimated_bytes=cost.peak_bytes,
                measured_bytes=measured,
                ratio=ratio,
            )
            if measured > SMALLEST_COUNTED_BYTES:
                yield ratio


def step_model(task: str) -> StepModel:
    """Return the model that estimates steps of SmolLM2."""
    config = resolve(BackboneConfig(model=SMOLLM2), Path.cwd()).config()
    labels = LABELS if task == "classification" else 0
    dtype = compute_dtype("auto", torch.device("cpu"))
    return StepModel(config, TASK_TYPES[task], name=SMOLLM2, labels=labels, quantization="nf4", dtype=dtype)


def measure_peak_bytes(name: str, params: dict[str, Any], backbone: SharedBackbone, dataset: TaskDataset) -> float:
    """Return the peak memory of a trial above the backbone's.

    Every trial runs in a forked process: in this one, it could reuse heap that an earlier trial has freed.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=train, args=(sender, name, params, backbone, dataset))
    process.start()
    sender.close()
    peak: float = receiver.recv()
    process.join()
    return peak


def train(
    sender: Connection, name: str, params: dict[str, Any], backbone: SharedBackbone, dataset: TaskDataset
) -> None:
    """Train two steps and send the peak memory in bytes.

    A forward pass before the trial excludes what libraries allocate once per process.
    """
    job = Job(trial=TrialKey(f"task/{name}", 0), params=params, seed=0, start=0, stop=STEPS, total=STEPS)
    with torch.no_grad():
        dataset.type.loss(backbone.view(0), dataset.batch(np.arange(2)))
    run = TrialRun(job, backbone, dataset, Training())
    for _ in range(STEPS):
        loss = run.forward()
        loss.backward()
        run.finish_step(loss.detach())
        del loss
    sender.send(run.measurements["peak_memory_bytes"])


def random_dataset(
    task: str, tokens: int, backbone: SharedBackbone, folder: Path, targets: int = TARGETS
) -> TaskDataset:
    """Return a dataset of random rows of exactly ``tokens`` tokens.

    A language model learns the last ``targets`` tokens of each row.
    """
    random = np.random.default_rng(0)
    ids = random.integers(1000, 20000, (ROWS, tokens)).astype(np.int32).tolist()
    columns = {"row": pa.array(np.arange(ROWS)), "input_ids": pa.array(ids, pa.list_(pa.int32()))}
    if task == "classification":
        columns["label"] = pa.array(random.integers(0, LABELS, ROWS).astype(np.int32))
        config: Any = ClassificationTask(type="classification", data="rows.csv", text="text", label="label")
    else:
        columns["bytes"] = pa.array(np.full(ROWS, targets, np.int32))
        columns["trained"] = token_column([np.arange(tokens) >= tokens - targets] * ROWS, np.uint8)
        config = CausalLMTask(type="causal-lm", data="rows.csv", prompt="{text}", completion="{label}")
    tables = dict.fromkeys(("train", "validation", "test"), pa.table(columns))
    return TaskDataset(config, tables, 0, backbone.decoder, Training(), 0, Storage.at(str(folder)))


if __name__ == "__main__":
    main()
