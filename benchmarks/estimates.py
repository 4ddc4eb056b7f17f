"""How near the memory that is estimated for a training step comes to what it takes.

SmolLM2-135M in NF4 as a classifier and as a language model, every method of the demo in its default configuration, at
several batch shapes. What it takes is measured as in a lane: the most that the C library has handed out at once above
what stood before the trial, over two steps in a warm process of its own. The last line has the worst ratio of estimate
to measurement, either way, where more than 200 MB were measured.
"""

from __future__ import annotations

import argparse
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
from benchmarks._common import SMOLLM2, attached_backbone, emit, scratch
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

METHODS = ("lora", "ia3", "adapter", "prefix", "prompt", "linear_probe", "last_layers", "full")
SHAPES = ((4, 32), (4, 96), (8, 64), (16, 96))
LABELS, TARGETS, ROWS, STEPS = 3, 4, 64, 2
TOLD = 200e6


def main() -> None:
    """Compare every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--tasks", nargs="+", default=sorted(TASK_TYPES), choices=sorted(TASK_TYPES))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with scratch() as folder:
        ratios = [ratio for task in asked.tasks for ratio in compare(task, asked.methods, folder)]
    emit(benchmark="estimates", cases=len(ratios), ratio=max(max(ratio, 1 / ratio) for ratio in ratios))


def compare(task: str, names: list[str], folder: Path) -> Iterator[float]:
    """Estimate and measure every method at every shape. Yields the ratios of those that are large enough."""
    backbone, model = attached_backbone(SMOLLM2, task, folder), step_model(task)
    for name in (name for name in names if TASK_TYPES[task].peft_task_type in methods.get(name).tasks):
        for rows, tokens in SHAPES:
            params = {**search_spaces.get(name).default, "batch_size": rows}
            cost = model.cost(name, params, Batch(rows=rows, tokens=tokens, targets=TARGETS))
            measured = apart(name, params, backbone, random_rows(task, tokens, backbone, folder))
            if cost is None:
                raise RuntimeError(f"there is no estimate for {name}")
            ratio = cost.peak_bytes / measured
            shape = {"task": task, "method": name, "rows": rows, "tokens": tokens}
            emit(benchmark="estimates", **shape, estimated=cost.peak_bytes, measured=measured, ratio=ratio)
            if measured > TOLD:
                yield ratio


def step_model(task: str) -> StepModel:
    """The estimates for SmolLM2."""
    config = resolve(BackboneConfig(model=SMOLLM2), Path.cwd()).config()
    labels = LABELS if task == "classification" else 0
    dtype = compute_dtype("auto", torch.device("cpu"))
    return StepModel(config, TASK_TYPES[task], name=SMOLLM2, labels=labels, quantization="nf4", dtype=dtype)


def apart(name: str, params: dict[str, Any], backbone: SharedBackbone, rows: TaskDataset) -> float:
    """The peak of a trial in a process of its own, which maps the same backbone: no heap of a former one serves it."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=train, args=(there, name, params, backbone, rows))
    process.start()
    there.close()
    peak: float = here.recv()
    process.join()
    return peak


def train(answer: Connection, name: str, params: dict[str, Any], backbone: SharedBackbone, rows: TaskDataset) -> None:
    """Two steps, then the most memory that was needed above what any first pass leaves behind in libraries."""
    job = Job(trial=TrialKey(f"task/{name}", 0), params=params, seed=0, start=0, stop=STEPS, total=STEPS)
    with torch.no_grad():
        rows.type.loss(backbone.view(0), rows.batch(np.arange(2)))
    run = TrialRun(job, backbone, rows, Training())
    for _ in range(STEPS):
        loss = run.forward()
        loss.backward()
        run.finish_step(loss.detach())
        del loss
    answer.send(run.measurements["peak_memory_bytes"])


def random_rows(task: str, tokens: int, backbone: SharedBackbone, folder: Path) -> TaskDataset:
    """Rows of exactly so many tokens; of a language model's, the last few are to be learned."""
    random = np.random.default_rng(0)
    ids = random.integers(1000, 20000, (ROWS, tokens)).astype(np.int32).tolist()
    columns = {"row": pa.array(np.arange(ROWS)), "input_ids": pa.array(ids, pa.list_(pa.int32()))}
    if task == "classification":
        columns["label"] = pa.array(random.integers(0, LABELS, ROWS).astype(np.int32))
        config: Any = ClassificationTask(type="classification", data="rows.csv", text="text", label="label")
    else:
        columns["prompt_length"] = pa.array(np.full(ROWS, tokens - TARGETS, np.int32))
        config = CausalLMTask(type="causal-lm", data="rows.csv", prompt="{text}", completion="{label}")
    tables = dict.fromkeys(("train", "validation", "test"), pa.table(columns))
    return TaskDataset(config, tables, 0, backbone.decoder, Training(), 0, Storage.at(str(folder)))


if __name__ == "__main__":
    main()
