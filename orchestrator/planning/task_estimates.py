"""Estimates of one task's steps on the device of the lanes, with rows as long as the task's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from methods.base.spec import Quantization
from orchestrator.backbone.skeleton import shallow_skeletons
from orchestrator.config import SweepConfig
from orchestrator.planning.capability.dummy_text import dummy_text
from orchestrator.planning.capability.probe import shape_key
from orchestrator.planning.estimates import Batch, StepCost, StepModel
from orchestrator.planning.lane_device import LaneDevice
from orchestrator.planning.row_lengths import RowLengths
from orchestrator.tasks import TaskData, TaskType
from orchestrator.tasks.batches import evaluation_rows
from orchestrator.tasks.generation import GENERATION_TOKENS

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

Params = Mapping[str, Any]


@dataclass
class TaskEstimates:
    """Estimates the steps of one task; equal ones are estimated once.

    Args:
        config: the sweep's configuration.
        architecture: the backbone's architecture.
        data: the task's rows.
        kind: the task's type.
        sources: the tasks that a trial may learn from before its own.
        tokenizer: the checkpoint's tokenizer.
        device: device of the lanes.
    """

    config: SweepConfig
    architecture: PretrainedConfig
    data: TaskData
    kind: TaskType
    sources: tuple[TaskData, ...]
    tokenizer: PreTrainedTokenizerBase
    device: LaneDevice

    def __post_init__(self) -> None:
        self._costs: dict[tuple[str, str, int, bool, bool], StepCost | None] = {}

    @cached_property
    def lengths(self) -> RowLengths:
        """Lengths of the task's training rows."""
        return RowLengths.of(self.data.splits["train"], self.kind, self.tokenizer, self.config.training.max_length)

    @property
    def backbone_bytes(self) -> float:
        """Bytes of the backbone on the device, with the scales that ``gpu.keep_unpacked`` may keep.

        Whole unpacked weights are not counted: a lane keeps them only where half of the free memory holds them.
        """
        return self._model.backbone_bytes(
            double_quantization=self.config.backbone.double_quantization,
            keeps_scales=self.config.gpu.keep_unpacked != "nothing",
        )

    def backbone_bytes_as(self, quantization: Quantization) -> float:
        """Return the bytes that the backbone would have with another quantization."""
        return self._step_model(self.architecture, quantization).backbone_bytes(double_quantization=True)

    def cost(self, method: str, params: Params, rows: int, *, checkpointed: bool = False) -> StepCost | None:
        """Return the cost of a step with the longest rows; ``None`` where it cannot be estimated.

        Args:
            method: the method's name.
            params: its configuration.
            rows: rows that pass through the model at once.
            checkpointed: whether blocks are computed again in the backward pass.
        """
        return self._cost(self._model, method, params, rows, checkpointed)

    def scoring_bytes(self, method: str, params: Params) -> float | None:
        """Return the peak memory of scoring a batch of the longest rows, above the backbone and the adapter."""
        longest, targets = self.lengths.longest, self.lengths.targets
        rows = evaluation_rows(longest, self.config.training.evaluation_batch)
        return self._model.scoring_bytes(method, params, Batch(rows=rows, tokens=longest, targets=targets))

    def generation_rows(self, new_tokens: int) -> int:
        """Return how many rows generate at once, where each generates so many tokens."""
        rows = min(self.config.training.validation_rows, GENERATION_TOKENS)
        return evaluation_rows(self.lengths.longest + new_tokens, rows, GENERATION_TOKENS)

    def generation_cost(self, method: str, params: Params, rows: int) -> StepCost | None:
        """Return the cost of a step with a batch of rows of one token each, by which generation is estimated."""
        return self._model.cost(method, params, Batch(rows=rows, tokens=2))

    def cost_in_few_layers(self, method: str, params: Params) -> StepCost | None:
        """Return the cost of a step with one row and checkpointed blocks in a backbone with few layers.

        It takes little time, and is enough to compare configurations.
        """
        return self._cost(self._few_layers, method, params, 1, True)

    @property
    def layers_per_few_layers(self) -> float:
        """How many times the layers of the backbone with few layers the real one has."""
        return self._model.layers / self._few_layers.layers

    def _cost(self, model: StepModel, method: str, params: Params, rows: int, checkpointed: bool) -> StepCost | None:
        key = (method, shape_key(params), rows, checkpointed, model is self._model)
        if key not in self._costs:
            batch = Batch(rows=rows, tokens=self.lengths.longest, targets=self.lengths.targets)
            self._costs[key] = model.cost(method, params, batch, checkpointed=checkpointed)
        return self._costs[key]

    @cached_property
    def _model(self) -> StepModel:
        return self._step_model(self.architecture)

    @cached_property
    def _few_layers(self) -> StepModel:
        backbone = self.config.backbone
        arguments = (
            self.kind.auto_class,
            self.kind.name,
            backbone.model,
            self._head_size(self.data),
            backbone.quantization,
        )
        shallow = next(shallow_skeletons(self.architecture, *arguments), None)
        return self._model if shallow is None else self._step_model(shallow.model.config)

    def _head_size(self, data: TaskData) -> int:
        return self.kind.head_size(len(data.labels))

    def _step_model(self, architecture: PretrainedConfig, quantization: Quantization | None = None) -> StepModel:
        backbone, labels = self.config.backbone, self._head_size(self.data)
        return StepModel(
            architecture,
            self.kind,
            name=backbone.model,
            labels=labels,
            quantization=quantization or backbone.quantization,
            dtype=self.device.dtype(backbone.compute_dtype),
            text=dummy_text(architecture, labels, self.config.training.max_length),
            sources=tuple(source.name for source in self.sources),
            source_labels=tuple(map(self._head_size, self.sources)),
            cuda=self.device.has_gpu,
        )
