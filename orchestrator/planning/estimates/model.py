"""Estimate training steps and scoring on one architecture for one task type, for any method."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

import methods
from methods.base.spec import Attached, MethodSpec, Quantization, TaskText
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.shrink import shallow
from orchestrator.planning.capability.attach import attach
from orchestrator.planning.capability.probe import shape_key
from orchestrator.planning.estimates.depth import (
    block_runs,
    deeper_cost,
    deeper_peak,
    has_shorter_run,
    shallow_depth,
)
from orchestrator.planning.estimates.meta_backbone import backbone_bytes, meta_backbone
from orchestrator.planning.estimates.step import Batch, StepCost, scoring_operators, step_cost
from orchestrator.tasks import TaskType

if TYPE_CHECKING:
    from transformers import PretrainedConfig

log = logging.getLogger(__name__)
Params = Mapping[str, Any]


@dataclass(frozen=True)
class ShallowPair:
    """A method on two backbones that lack blocks, the second one fewer than the first.

    Args:
        attached: the method on each, and the backbone.
        missing: blocks that the first lacks.
    """

    attached: tuple[tuple[Attached, SharedBackbone], ...]
    missing: int


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
        self._config, self._kind, self._cuda = config, kind, cuda
        self._arguments: dict[str, Any] = {"name": name, "labels": labels, "quantization": quantization, "dtype": dtype}
        self._context = {"text": text, "sources": sources, "source_labels": source_labels}
        self._backbone = self._make_backbone(config)
        self._shallow_backbones: dict[int, SharedBackbone] = {}
        self._depths: dict[tuple[str, str], int | None] = {}

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
        options = {"cuda": self._cuda, "checkpointed": checkpointed}
        try:
            if pair := self._shallow_pair(spec, params):
                costs, passes = zip(
                    *(step_cost(each, backbone, self._kind, batch, **options) for each, backbone in pair.attached),
                    strict=True,
                )
                if cost := deeper_cost(costs, passes, pair.missing):
                    return cost
            attached = attach(spec, params, self._backbone)
            return step_cost(attached, self._backbone, self._kind, batch, **options)[0]
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
            spec = methods.get(method)
            if pair := self._shallow_pair(spec, params):
                first, second = (
                    scoring_operators(each, backbone, self._kind, batch, cuda=self._cuda)
                    for each, backbone in pair.attached
                )
                if peak := deeper_peak(first, second, pair.missing):
                    return peak
            attached = attach(spec, params, self._backbone)
            operators = scoring_operators(attached, self._backbone, self._kind, batch, cuda=self._cuda)
            return float(max(level for *_, level in operators))
        except Exception as error:  # as for a step
            log.debug("no estimate of scoring for %s: %s", method, error)
            return None

    def _shallow_pair(self, spec: MethodSpec[Any], params: Params) -> ShallowPair | None:
        """Attach a method to two shallow backbones; ``None`` where their blocks are not those of the real one."""
        key = (spec.name, shape_key(params))
        if key not in self._depths:
            self._depths[key] = self._find_depth(spec, params)
        if (depth := self._depths[key]) is None:
            return None
        backbones = self._shallow(depth), self._shallow(depth + 1)
        return ShallowPair(tuple((attach(spec, params, each), each) for each in backbones), self.layers - depth)

    def _find_depth(self, spec: MethodSpec[Any], params: Params) -> int | None:
        """Return the number of layers of the shallower backbone; ``None`` if there is none that saves work."""
        runs = block_runs(attach(spec, params, self._backbone))
        if (depth := shallow_depth(runs)) is None or sum(count for _, count in runs) != self.layers:
            return None
        try:
            shallow_runs = [block_runs(attach(spec, params, self._shallow(depth + more))) for more in (0, 1)]
        except Exception as error:  # a method may name layers that only the real backbone has
            log.debug("%s is estimated with all layers: %s", spec.name, error)
            return None
        return depth if all(has_shorter_run(shallow, runs) for shallow in shallow_runs) else None

    def _shallow(self, layers: int) -> SharedBackbone:
        if layers not in self._shallow_backbones:
            self._shallow_backbones[layers] = self._make_backbone(next(shallow(self._config, (layers,))))
        return self._shallow_backbones[layers]

    def _make_backbone(self, config: PretrainedConfig) -> SharedBackbone:
        backbone = meta_backbone(config, self._kind.auto_class, self._kind.name, **self._arguments)
        backbone.context = replace(backbone.context, **self._context)  # type: ignore[arg-type]
        return backbone
