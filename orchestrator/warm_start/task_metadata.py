"""What is known of a task and its backbone before anything is trained, and how alike two of them are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

if TYPE_CHECKING:
    from orchestrator.backbone.source import Source
    from orchestrator.config import SweepConfig
    from orchestrator.tasks import TaskData, TaskType

WEIGHTS = {"backbone": 0.4, "type": 0.2, "metric": 0.1, "labels": 0.1, "rows": 0.1, "characters": 0.1}
"""What each agreement counts; they add up to 1."""
OTHER_PRECISION, OTHER_WEIGHTS = 0.9, 0.4


@dataclass(frozen=True, kw_only=True)
class TaskMetadata:
    """A task on a backbone. What was not recorded is left out, and is like nothing.

    Args:
        backbone: the checkpoint's name.
        digest: of the quantized backbone.
        architecture: the family, as transformers calls it: ``bert``, ``llama`` and so on.
        parameters: of the backbone.
        type: the task's.
        metric: what it is scored by.
        labels: how many classes it has; 0 for a task without any.
        rows: for training.
        characters: of a training row, the median.
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
        """The same checkpoint, however it is quantized."""
        return _same(self.digest, other.digest) or _same(self.backbone, other.backbone)

    def comparable(self, other: TaskMetadata) -> bool:
        """Whether one may tell anything of the other without anyone having said so."""
        return self.same_backbone(other) or _same(self.type, other.type)

    def similarity(self, other: TaskMetadata) -> float:
        """How alike two are, in 0..1: the agreements below, weighted by :data:`WEIGHTS`.

        - backbone: 1 for the same quantized weights, 0.9 for the same checkpoint quantized otherwise; else 0.4 for
          the same architecture family, and up to 0.4 for a size within two decades
        - type and metric: the same or not
        - labels, characters: 1 for as many, 0 from ten times as many on, logarithmic in between
        - rows: the same over two decades
        """
        found = {
            "backbone": self._backbone_agreement(other),
            "type": float(_same(self.type, other.type)),
            "metric": float(_same(self.metric, other.metric)),
            "labels": _near(_counted(self.labels), _counted(other.labels), decades=1),
            "rows": _near(self.rows, other.rows, decades=2),
            "characters": _near(self.characters, other.characters, decades=1),
        }
        return math.fsum(WEIGHTS[name] * agreement for name, agreement in found.items())

    def _backbone_agreement(self, other: TaskMetadata) -> float:
        if _same(self.digest, other.digest):
            return 1.0
        if _same(self.backbone, other.backbone):
            return OTHER_PRECISION
        size = _near(self.parameters, other.parameters, decades=2)
        return OTHER_WEIGHTS * (_same(self.architecture, other.architecture) + size)


def task_metadata(
    data: TaskData, kind: TaskType, config: SweepConfig, source: Source, architecture: str, parameters: int
) -> TaskMetadata:
    """What is known of a task that a sweep is about to train, and of its backbone."""
    from orchestrator.backbone.store import backbone_digest

    backbone = config.backbone
    return TaskMetadata(
        backbone=config.resolved()["backbone"]["model"],
        digest=backbone_digest(source, kind.auto_class, backbone.quantization, backbone.double_quantization),
        architecture=architecture,
        parameters=parameters,
        type=kind.name,
        metric=data.config.metric,
        labels=len(data.labels),
        rows=data.splits["train"].num_rows,
        characters=typical_characters(data),
    )


def typical_characters(data: TaskData) -> float:
    """Characters of a training row's input, the median."""
    rows = data.splits["train"]
    column = rows["text" if "text" in rows.column_names else "prompt"]
    return float(np.median(pc.utf8_length(column).to_numpy())) if rows.num_rows else 0.0


def _same(one: str, other: str) -> bool:
    return bool(one) and one == other


def _counted(labels: int | None) -> float:
    """A count of which 0 is one as well."""
    return 0.0 if labels is None else labels + 1.0


def _near(one: float, other: float, decades: float) -> float:
    """1 for equal sizes, 0 for sizes that many powers of ten apart, or where one is not known."""
    if one <= 0 or other <= 0:
        return 0.0
    return max(0.0, 1.0 - abs(math.log10(one / other)) / decades)
