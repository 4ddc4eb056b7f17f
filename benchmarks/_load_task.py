"""A task of the recorded tables with its quantized backbone, as a lane on this machine has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from benchmarks._common import publish_backbone
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import resolve
from orchestrator.config import BackboneConfig, Task, Training
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.tasks import TaskType, read_task, task_type
from orchestrator.tasks.data import TaskData


@dataclass(frozen=True)
class LoadedTask:
    """A task that trials can start on.

    Args:
        name: Name of the task.
        data: Its rows.
        kind: Its type, with its metrics and labels.
        dataset: Its tokenized rows.
        backbone: The frozen backbone with a head of the task's size.
    """

    name: str
    data: TaskData
    kind: TaskType
    dataset: TaskDataset
    backbone: SharedBackbone


def load_task(name: str, section: Mapping[str, Any], model: str, training: Training, folder: Path) -> LoadedTask:
    """Read a classification task, and load its backbone in NF4 beside its unquantized weights.

    Args:
        name: Name of the task.
        section: The task as in a configuration.
        model: The backbone as in a configuration.
        training: Limits of a trial.
        folder: Folder for the backbone's files.
    """
    config: Task = TypeAdapter(Task).validate_python(dict(section), context={"base": folder})
    data = read_task(name, config, folder, 0)
    tokenizer = resolve(BackboneConfig(model=model), folder).tokenizer()
    kind = task_type(data.config).configured(
        data.config.metrics, data.config.generated_tokens, tokenizer, data.labels, constants=data.constants
    )
    backbone = load(
        publish_backbone(model, kind.name, folder),
        kind.name,
        name=model,
        dtype=compute_dtype("auto", torch.device("cpu")),
        labels=len(data.labels),
        original=publish_backbone(model, kind.name, folder, "none"),
    )
    tables = {split: kind.tokenize(rows, tokenizer, training.max_length) for split, rows in data.splits.items()}
    dataset = TaskDataset(
        data.config, tables, int(tokenizer.pad_token_id or 0), False, training,
        tokenizer=tokenizer, names=data.labels, constants=data.constants,
    )  # fmt: skip
    return LoadedTask(name, data, kind, dataset, backbone)
