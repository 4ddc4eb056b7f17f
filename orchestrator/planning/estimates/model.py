"""Estimate training steps and scoring on one architecture for one task type, for any method."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

import methods
from methods.base.spec import Quantization, TaskText
from orchestrator.planning.capability.attach import attach
from orchestrator.planning.estimates.meta_backbone import backbone_bytes, meta_backbone
from orchestrator.planning.estimates.step import Batch, StepCost, scoring_bytes, step_cost
from orchestrator.tasks import TaskType

if TYPE_CHECKING:
    from transformers import PretrainedConfig

log = logging.getLogger(__name__)


class StepModel:
    """Estimates the cost of training steps on a backbone, from its architecture alone.

    Args:
        config: the architecture.
        kind: the task type.
        name: the backbone's name.
        labels: number of classes of a classification task; 0 for a language model.
        quantization: quantization of the backbone.
        dtype: dtype in which frozen layers compute.
        text: the task's text, for methods that read it.
        sources: names of the source tasks, from which a trial may learn before its own task.
        source_labels: number of classes of each source task.
        cuda: whether lanes have a GPU.

    Raises:
        ValueError: if transformers has no model of this architecture for the task type.
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
        changes = {"text": text, "sources": sources, "source_labels": source_labels}
        self._backbone.context = replace(self._backbone.context, **changes)  # type: ignore[arg-type]

    @property
    def layers(self) -> int:
        """Number of the backbone's layers."""
        count: int = self._backbone.model.config.get_text_config().num_hidden_layers
        return count

    def backbone_bytes(self, *, double_quantization: bool, keeps_scales: bool = False) -> float:
        """Return the bytes of the backbone in a lane.

        Args:
            double_quantization: whether the scales of 4-bit weights are quantized too.
            keeps_scales: whether they are kept unpacked beside that.
        """
        return backbone_bytes(self._backbone, double_quantization=double_quantization, keeps_scales=keeps_scales)

    def cost(
        self, method: str, params: Mapping[str, Any], batch: Batch, *, checkpointed: bool = False
    ) -> StepCost | None:
        """Return the cost of one training step.

        Args:
            method: the method's name.
            params: its hyperparameters; ``batch`` overrides their batch size.
            batch: shape of the batch.
            checkpointed: whether blocks are computed again in the backward pass, as lanes do where memory is short.

        Returns:
            The cost; ``None`` for a method that trains nothing, and for one that needs the backbone's weights to be
            attached.
        """
        spec = methods.get(method)
        if not spec.trains:
            return None
        try:
            attached = attach(spec, params, self._backbone)
            return step_cost(attached, self._backbone, self._kind, batch, cuda=self._cuda, checkpointed=checkpointed)
        except Exception as error:  # any method, plugins included, may need data that the meta device lacks
            log.debug("no estimate for %s: %s", method, error)
            return None

    def scoring_bytes(self, method: str, params: Mapping[str, Any], batch: Batch) -> float | None:
        """Return the peak memory of scoring one batch, above the backbone and the adapter, in bytes.

        Args:
            method: the method's name.
            params: its hyperparameters.
            batch: shape of the batch, with :func:`orchestrator.tasks.batches.evaluation_rows` rows.

        Returns:
            The peak; ``None`` for a method that needs the backbone's weights, or the batch's numbers.
        """
        try:
            attached = attach(methods.get(method), params, self._backbone)
            return scoring_bytes(attached, self._backbone, self._kind, batch, cuda=self._cuda)
        except Exception as error:  # as for a step
            log.debug("no estimate of scoring for %s: %s", method, error)
            return None
