"""How many methods train on the demo's task: each on the real NF4 encoder and real tweets, a few steps.

Takes every name that a sweep can write (the methods with a file, ``peft:TYPE`` for each type, and a composition), its
search space's default, and prints a line per method: whether it trained and was saved, its loss over the first and the
last steps, what it trains and how long it took, or why not. The last line counts them.

    python -m benchmarks.catalogue
    python -m benchmarks.catalogue --methods lora peft:boft --steps 40
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pydantic import TypeAdapter

import methods
import search_spaces
from benchmarks._common import MINILM, attached_backbone, emit, scratch
from benchmarks._recorded_tasks import airline, events
from methods.base.spec import MethodError
from methods.families.peft_type_names import refused, trainable_types
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.source import resolve
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import BackboneConfig, Task, Training
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks import TASK_TYPES, read_task

COMPOSITION = "compose:prefix+adapter"
STEPS, BATCH, AVERAGED = 12, 8, 3
TRAINING = Training(max_steps=STEPS, max_length=32)


def main() -> None:
    """Train everything once."""
    known = [*methods.names(), *(f"peft:{kind}" for kind in trainable_types()), COMPOSITION]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=known)
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with scratch() as folder:
        backbone = attached_backbone(MINILM, "classification", folder)
        rows, source = (tweets(task, folder) for task in (airline, events))
        found = [run_on_all_ranks(name, asked.steps, backbone, rows, {"events": source}) for name in asked.methods]
    emit(
        benchmark="catalogue",
        names=len(found),
        trained=sum(one["trained"] for one in found),
        refused=[one["method"] for one in found if "refused" in one],
        failed=[one["method"] for one in found if "failed" in one],
        refused_types=refused(),
    )


def run_on_all_ranks(
    name: str, steps: int, backbone: SharedBackbone, rows: TaskDataset, sources: Mapping[str, TaskDataset]
) -> dict[str, Any]:
    """Train and save one method; what went wrong is a part of the result."""
    begin, before = time.perf_counter(), backbone.checksum()
    found: dict[str, Any] = {"method": name, "trained": False}
    try:
        found |= train(name, steps, backbone, rows, sources)
    except MethodError as error:
        found["refused"] = str(error)
    except Exception as error:  # a method may fail in any way, and the others are measured still
        found["failed"] = f"{type(error).__name__}: {error}"
    if backbone.checksum() != before:
        found |= {"trained": False, "failed": "it wrote into the shared backbone"}
    found["seconds"] = round(time.perf_counter() - begin, 2)
    emit(benchmark="catalogue", **found)
    return found


def train(
    name: str, steps: int, backbone: SharedBackbone, rows: TaskDataset, sources: Mapping[str, TaskDataset]
) -> dict[str, Any]:
    """A trial as a lane runs it.

    Raises:
        MethodError: if the method refuses the backbone or the task.
    """
    spec = methods.get(name)
    if backbone.context.task_type not in spec.tasks or not spec.trains:
        raise MethodError(f"cannot train {backbone.context.task} tasks")
    params = {**search_spaces.get(name).default, "batch_size": BATCH}
    job = Job(trial=TrialKey(f"airline/{name}", 0), params=params, seed=0, start=0, stop=steps, total=steps)
    run, losses = TrialRun(job, backbone, rows, TRAINING, sources), []
    for _ in range(steps):
        loss = run.forward()
        loss.backward()
        run.finish_step(loss)
        losses.append(loss.item())
    with tempfile.TemporaryDirectory() as folder:
        run.save(Path(folder), resumable=True)
    return {
        "trained": True,
        "steps": run.step,
        "loss_first": round(fmean(losses[:AVERAGED]), 4),
        "loss_last": round(fmean(losses[-AVERAGED:]), 4),
        "trainable": int(run.measurements["trainable_parameters"]),
    }


def tweets(task: Any, folder: Path) -> TaskDataset:
    """A task of real tweets, tokenized."""
    config: Task = TypeAdapter(Task).validate_python(task(folder), context={"base": folder})
    data = read_task("tweets", config, folder, 0)
    tokenizer = resolve(BackboneConfig(model=MINILM), folder).tokenizer()
    storage = Storage.at(str(folder))
    tokenizer.save_pretrained(folder / "tokenizer")
    kind = TASK_TYPES[config.type]
    tables = {split: kind.tokenize(part, tokenizer, TRAINING.max_length) for split, part in data.splits.items()}
    return TaskDataset(config, tables, tokenizer.pad_token_id, False, TRAINING, 0, storage, tuple(data.labels))


if __name__ == "__main__":
    main()
