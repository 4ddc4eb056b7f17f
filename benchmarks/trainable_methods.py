"""Methods that train on the demo's task: each trains a few steps on NF4 MiniLM and real tweets, and is saved.

Covers every method name that a sweep file can contain: the methods with a file, ``peft:TYPE`` for each type, and one
composition, each in its default configuration. A line per method has ``trained``, whether it trained and was saved,
and:

- ``loss_first`` and ``loss_last``: mean training loss of the first and of the last three steps.
- ``trainable_parameters``: their number. ``seconds``: wall seconds of attaching, training and saving.
- ``refused`` or ``failed``: the error, if it did not train.

The last line has the number of names, of those that trained, and the names that were refused or failed.

    python -m benchmarks.trainable_methods
    python -m benchmarks.trainable_methods --methods lora peft:boft --steps 40
"""

from __future__ import annotations

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
from benchmarks._common import MINILM, argument_parser, emit, load_shared_backbone, scratch_folder
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
    """Train every method once."""
    names = [*methods.names(), *(f"peft:{peft_type}" for peft_type in trainable_types()), COMPOSITION]
    parser = argument_parser(__doc__)
    parser.add_argument("--methods", nargs="+", default=names, metavar="METHOD", help="methods to train (default: all)")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="optimizer steps of every method (default: %(default)s)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with scratch_folder() as folder:
        backbone = load_shared_backbone(MINILM, "classification", folder)
        dataset, source = (tweet_dataset(task, folder) for task in (airline, events))
        results = [
            try_method(name, arguments.steps, backbone, dataset, {"events": source}) for name in arguments.methods
        ]
    emit(
        benchmark="trainable_methods",
        names=len(results),
        trained=sum(result["trained"] for result in results),
        refused=[result["method"] for result in results if "refused" in result],
        failed=[result["method"] for result in results if "failed" in result],
        refused_types=refused(),
    )


def try_method(
    name: str, steps: int, backbone: SharedBackbone, dataset: TaskDataset, sources: Mapping[str, TaskDataset]
) -> dict[str, Any]:
    """Train and save a method, print its line, and return it; an error is a field of the line."""
    start, checksum = time.perf_counter(), backbone.checksum()
    result: dict[str, Any] = {"method": name, "trained": False}
    try:
        result |= train(name, steps, backbone, dataset, sources)
    except MethodError as error:
        result["refused"] = str(error)
    except Exception as error:  # whatever a method raises, the next methods are still measured
        result["failed"] = f"{type(error).__name__}: {error}"
    if backbone.checksum() != checksum:
        result |= {"trained": False, "failed": "the method wrote to the shared backbone"}
    result["seconds"] = round(time.perf_counter() - start, 2)
    emit(benchmark="trainable_methods", **result)
    return result


def train(
    name: str, steps: int, backbone: SharedBackbone, dataset: TaskDataset, sources: Mapping[str, TaskDataset]
) -> dict[str, Any]:
    """Train and save a trial as a lane does, and return the fields of its line.

    Raises:
        MethodError: if the method refuses the backbone or the task.
    """
    spec = methods.get(name)
    if backbone.context.task_type not in spec.tasks or not spec.trains:
        raise MethodError(f"cannot train {backbone.context.task} tasks")
    params = {**search_spaces.get(name).default, "batch_size": BATCH}
    job = Job(trial=TrialKey(f"airline/{name}", 0), params=params, seed=0, start=0, stop=steps, total=steps)
    run, losses = TrialRun(job, backbone, dataset, TRAINING, sources), []
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
        "trainable_parameters": int(run.measurements["trainable_parameters"]),
    }


def tweet_dataset(task: Any, folder: Path) -> TaskDataset:
    """Return the tokenized rows of a task of real tweets."""
    config: Task = TypeAdapter(Task).validate_python(task(folder), context={"base": folder})
    data = read_task("tweets", config, folder, 0)
    tokenizer = resolve(BackboneConfig(model=MINILM), folder).tokenizer()
    storage = Storage.at(str(folder))
    tokenizer.save_pretrained(folder / "tokenizer")
    task_type = TASK_TYPES[config.type]
    tables = {split: task_type.tokenize(rows, tokenizer, TRAINING.max_length) for split, rows in data.splits.items()}
    return TaskDataset(config, tables, tokenizer.pad_token_id, False, TRAINING, 0, storage, tuple(data.labels))


if __name__ == "__main__":
    main()
