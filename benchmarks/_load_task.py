"""A task of the recorded tables with its quantized backbone, as a lane on this machine has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerBase

from benchmarks._common import load_shared_backbone
from orchestrator.backbone.shared import SharedBackbone
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
        dataset: Its tokenized rows.
        backbone: The frozen backbone with a head of the task's size.
    """

    name: str
    data: TaskData
    dataset: TaskDataset
    backbone: SharedBackbone

    @property
    def kind(self) -> TaskType:
        """Its type, with its metrics and labels."""
        return self.dataset.type


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
    backbone = load_shared_backbone(model, config.type, folder, len(data.labels))
    return LoadedTask(name, data, tokenized(data, tokenizer, backbone, training), backbone)


def tokenized(
    data: TaskData, tokenizer: PreTrainedTokenizerBase, backbone: SharedBackbone, training: Training
) -> TaskDataset:
    """Return the tokenized rows of a task.

    Args:
        data: The task's rows.
        tokenizer: The backbone's tokenizer.
        backbone: The backbone that reads them.
        training: Limits of a trial.
    """
    kind = task_type(data.config, tokenizer, data.labels, data.constants)
    tables = {split: kind.tokenize(rows, tokenizer, training.max_length) for split, rows in data.splits.items()}
    return TaskDataset(
        data.config, tables, int(tokenizer.pad_token_id or 0), backbone.decoder, training,
        tokenizer=tokenizer, names=data.labels, constants=data.constants,
    )  # fmt: skip
