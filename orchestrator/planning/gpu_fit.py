"""What fits into the GPU of a lane beside the backbone: whole batches, parts of them, or nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.common.units import size as size_text
from orchestrator.engine.step_size import StepSize
from orchestrator.planning.capability.restrict_space import extremes
from orchestrator.planning.estimates import StepCost
from orchestrator.planning.task_estimates import TaskEstimates
from search_spaces._base import SearchSpace

Params = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class GpuFit:
    """How a configuration trains on a GPU.

    Args:
        size: how much of a batch a step computes at once, as a lane finds it.
        batch_size: rows of a batch.
        cost: cost of the step with the rows that are computed at once.
        scoring_bytes: peak memory of scoring above backbone and adapter, in bytes; a lane that has less scores fewer
            rows at once.
    """

    size: StepSize
    batch_size: int
    cost: StepCost
    scoring_bytes: float = 0.0

    @property
    def rows(self) -> int:
        """Rows that pass through the model at once; the others of the batch follow, with accumulated gradients."""
        return math.ceil(self.batch_size / self.size.micro_batches)

    @property
    def peak_bytes(self) -> float:
        """Peak memory of training and scoring above the backbone, in bytes."""
        return max(self.cost.peak_bytes, self.cost.adapter_bytes + self.cost.optimizer_bytes + self.scoring_bytes)

    def fields(self) -> dict[str, Any]:
        """Return the fields of the JSON output of ``plan``."""
        return {
            "batch_size": self.batch_size,
            "rows_at_once": self.rows,
            "checkpointed_blocks": self.size.checkpointed,
            "scoring_memory_bytes": self.scoring_bytes,
        }


@dataclass(frozen=True)
class GpuRoom:
    """The memory that a worker's GPU has for the trials of one task.

    Args:
        estimates: estimates of the task's steps.
        room_bytes: memory that tensors can use beside the backbones, in bytes.
    """

    estimates: TaskEstimates
    room_bytes: float

    def fit(self, method: str, params: Params) -> GpuFit | None:
        """Return how a configuration trains; ``None`` if not even one row fits, or if that is unknown.

        The sizes are those that a lane tries, in its order. Scoring has no part in it, and is left to the forecast.
        """
        batch_size, is_divisible = int(params.get("batch_size", 1)), self.estimates.kind.is_divisible
        tokens = batch_size * self.estimates.lengths.longest
        size: StepSize | None = StepSize()
        while size is not None:
            cost = self._cost_if_it_may_fit(method, params, batch_size, size)
            if cost is not None and cost.peak_bytes <= self.room_bytes:
                return GpuFit(size=size, batch_size=batch_size, cost=cost)
            size = size.smaller(batch_size if is_divisible else 1, tokens, torch.device("cuda"))
        return None

    def _cost_if_it_may_fit(self, method: str, params: Params, batch_size: int, size: StepSize) -> StepCost | None:
        """Return the cost of a step size; ``None`` where it is unknown, or the line through two others says too much.

        The peak grows linearly with rows, so that most sizes need no estimate of their own.
        """
        rows, checkpointed = math.ceil(batch_size / size.micro_batches), size.checkpointed
        if size.micro_batches > 1:
            whole, one = (
                self.estimates.cost(method, params, count, checkpointed=checkpointed) for count in (batch_size, 1)
            )
            if whole is None or one is None:
                return None
            per_row = (whole.peak_bytes - one.peak_bytes) / (batch_size - 1)
            if one.peak_bytes + per_row * (rows - 1) > self.room_bytes:
                return None
        return self.estimates.cost(method, params, rows, checkpointed=checkpointed)

    def excess(self, method: str, params: Params) -> float:
        """Return by which fraction of the room the least step exceeds it; at most 0 if it fits, or that is unknown."""
        least = self._least_bytes(method, params)
        return -1.0 if least is None else least / self.room_bytes - 1

    def refusal(self, method: str, params: Params) -> str:
        """Return why a configuration cannot train on the GPU, one line; empty if it can."""
        least = self._least_bytes(method, params)
        if least is None or least <= self.room_bytes:
            return ""
        count = self._fewest_rows(params)
        rows = "one row" if count == 1 else f"a batch of {count} rows, which cannot be divided,"
        return (
            f"{rows} of {self.estimates.lengths.longest:,} tokens takes {size_text(least)}, even with checkpointed "
            f"blocks, and the GPU has {size_text(self.room_bytes)} beside the backbone"
        )

    def _fewest_rows(self, params: Params) -> int:
        """Return how many rows pass through the model at once at least."""
        return 1 if self.estimates.kind.is_divisible else int(params.get("batch_size", 1))

    def _least_bytes(self, method: str, params: Params) -> float | None:
        """Return the peak memory of the least step, with checkpointed blocks, in bytes; ``None`` if unknown."""
        cost = self.estimates.cost(method, params, self._fewest_rows(params), checkpointed=True)
        return None if cost is None else cost.peak_bytes

    def holds_all_of(self, method: str, space: SearchSpace) -> bool:
        """Return whether the largest configuration of a search space fits as well, so that none need be checked."""
        largest, few = self._largest(method, space)
        # Embeddings and logits exist once in a backbone with few layers too, so this is more than all layers take.
        is_divisible = self.estimates.kind.is_divisible  # else a step has more rows than the one that was estimated
        if is_divisible and few * self.estimates.layers_per_few_layers <= self.room_bytes:
            return True
        return self.excess(method, largest) <= 0

    def _largest(self, method: str, space: SearchSpace) -> tuple[dict[str, Any], float]:
        """Return the configuration in which each parameter in turn has the end or choice that takes the most.

        Beside it stands the memory that it takes in a backbone with few layers, in bytes.
        """
        params = dict(space.default)
        for name, distribution in space.distributions.items():
            options = [params, *({**params, name: value} for value in extremes(distribution))]
            params = max(
                options, key=lambda option: (self._bytes_in_few_layers(method, option), self._fewest_rows(option))
            )
        return params, self._bytes_in_few_layers(method, params)

    def _bytes_in_few_layers(self, method: str, params: Params) -> float:
        cost = self.estimates.cost_in_few_layers(method, params)
        return -math.inf if cost is None else cost.peak_bytes
