"""Estimates for one architecture and one type of task, whatever the method."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

import methods
from methods.base.spec import Quantization, TaskText
from orchestrator.planning.capability.dry_run import attach
from orchestrator.planning.estimates.meta_backbone import meta_backbone
from orchestrator.planning.estimates.step import Batch, StepCost, step_cost
from orchestrator.tasks import TaskType

if TYPE_CHECKING:
    from transformers import PretrainedConfig

log = logging.getLogger(__name__)


class StepModel:
    """Tells what training steps on a backbone take, from its architecture alone.

    Args:
        config: the architecture.
        kind: the type of task.
        name: of the backbone.
        labels: classes of a classification task; 0 for a language model.
        quantization: of the backbone.
        dtype: what its frozen layers are computed in.
        text: the task's words, for the methods that read them.
        sources: names of the tasks that a trial may learn from before its own.
        source_labels: how many classes each of those has.
        cuda: whether lanes have a GPU.

    Raises:
        ValueError: if no model for this type of task can be made of the architecture.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        kind: TaskType,
        *,
        name: str,
        labels: int,
        quantization: Quantization,
        dtype: torch.dtype,
        text: TaskText | None = None,
        sources: tuple[str, ...] = (),
        source_labels: tuple[int, ...] = (),
        cuda: bool = False,
    ) -> None:
        self._kind, self._cuda = kind, cuda
        self._backbone = meta_backbone(
            config, kind.auto_class, kind.name, name=name, labels=labels, quantization=quantization, dtype=dtype
        )
        told = {"text": text, "sources": sources, "source_labels": source_labels}
        self._backbone.context = replace(self._backbone.context, **told)  # type: ignore[arg-type]

    def cost(self, method: str, params: Mapping[str, Any], batch: Batch) -> StepCost | None:
        """What a step of a configuration takes.

        Args:
            method: its name.
            params: its configuration; the batch is as ``batch`` says.
            batch: its shape.

        Returns:
            Nothing for a method that has nothing to train, and where only real numbers would tell.
        """
        spec = methods.get(method)
        if not spec.trains:
            return None
        try:
            attached = attach(spec, params, self._backbone)
            return step_cost(attached, self._backbone, self._kind, batch, cuda=self._cuda)
        except Exception as error:  # any method may ask for numbers anywhere, plugins too
            log.debug("no estimate for %s: %s", method, error)
            return None
