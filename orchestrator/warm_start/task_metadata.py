"""Metadata of a task and its backbone that is known before training, and the similarity of two tasks by it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.tasks.tokens import characters

if TYPE_CHECKING:
    from orchestrator.backbone.source import Source
    from orchestrator.config import SweepConfig
    from orchestrator.tasks import TaskData, TaskType

WEIGHTS = {"backbone": 0.4, "type": 0.2, "metric": 0.1, "labels": 0.1, "rows": 0.1, "characters": 0.1}
"""Weights of the agreements; they add up to 1."""
OTHER_PRECISION_AGREEMENT, OTHER_CHECKPOINT_AGREEMENT = 0.9, 0.4


@dataclass(frozen=True, kw_only=True)
class TaskMetadata:
    """A task on a backbone. A field that was not recorded has its default, and agrees with nothing.

    Args:
        backbone: The checkpoint's name.
        digest: Digest of the quantized backbone.
        architecture: The family, as transformers calls it: ``bert``, ``llama`` and so on.
        parameters: Number of the backbone's parameters.
        type: The task's type.
        metric: The task's metric.
        labels: Number of classes; 0 for a task without classes.
        rows: Number of training rows.
        characters: Median number of characters of a training row.
    """

    backbone: str = ""
    digest: str = ""
    architecture: str = ""
    parameters: float = 0
    type: str = ""
    metric: str = ""
    labels: int | None = None
    rows: float = 0
    characters: float = 0

    def same_backbone(self, other: TaskMetadata) -> bool:
        """Return whether two tasks have the same checkpoint, however it is quantized."""
        return _same(self.digest, other.digest) or _same(self.backbone, other.backbone)

    def comparable(self, other: TaskMetadata) -> bool:
        """Return whether a sweep of the other task may be used without a user having named it."""
        return self.same_backbone(other) or _same(self.type, other.type)

    def similarity(self, other: TaskMetadata) -> float:
        """Return the similarity of two tasks in 0..1: the agreements below, weighted by :data:`WEIGHTS`.

        - backbone: 1 for the same quantized weights, 0.9 for the same checkpoint quantized otherwise; else 0.4 for
          the same architecture family, and up to 0.4 for a size within two decades
        - type and metric: 1 if equal, else 0
        - labels and characters: 1 for equal numbers, 0 for ten times as many or more, logarithmic in between
        - rows: likewise over two decades
        """
        agreements = {
            "backbone": self._backbone_agreement(other),
            "type": float(_same(self.type, other.type)),
            "metric": float(_same(self.metric, other.metric)),
            "labels": _near(_counted(self.labels), _counted(other.labels), decades=1),
            "rows": _near(self.rows, other.rows, decades=2),
            "characters": _near(self.characters, other.characters, decades=1),
        }
        return math.fsum(WEIGHTS[name] * agreement for name, agreement in agreements.items())

    def _backbone_agreement(self, other: TaskMetadata) -> float:
        if _same(self.digest, other.digest):
            return 1.0
        if _same(self.backbone, other.backbone):
            return OTHER_PRECISION_AGREEMENT
        size = _near(self.parameters, other.parameters, decades=2)
        return OTHER_CHECKPOINT_AGREEMENT * (_same(self.architecture, other.architecture) + size)


def task_metadata(
    data: TaskData, kind: TaskType, config: SweepConfig, source: Source, architecture: str, parameters: int
) -> TaskMetadata:
    """Return the metadata of a task of the present sweep and its backbone."""
    from orchestrator.backbone.store import backbone_digest

    backbone = config.backbone
    return TaskMetadata(
        backbone=config.resolved()["backbone"]["model"],
        digest=backbone_digest(source, kind.auto_class, backbone.quantization, backbone.double_quantization),
        architecture=architecture,
        parameters=parameters,
        type=kind.name,
        metric=data.config.metrics[0],
        labels=len(data.labels),
        rows=data.splits["train"].num_rows,
        characters=typical_characters(data, kind),
    )


def typical_characters(data: TaskData, kind: TaskType) -> float:
    """Return the median number of characters of a training row's main input."""
    rows = data.splits["train"]
    texts = next(rows[name] for name in kind.text_columns if name in rows.column_names)
    return float(np.median(characters(texts))) if rows.num_rows else 0.0


def _same(value: str, other: str) -> bool:
    return bool(value) and value == other


def _counted(labels: int | None) -> float:
    """Return a positive number for any number of labels, so that 0 is not taken for a missing one."""
    return 0.0 if labels is None else labels + 1.0


def _near(size: float, other: float, decades: float) -> float:
    """Return 1 for equal sizes, and 0 for sizes that many powers of ten apart or missing ones."""
    if size <= 0 or other <= 0:
        return 0.0
    return max(0.0, 1.0 - abs(math.log10(size / other)) / decades)
