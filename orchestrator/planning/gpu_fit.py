"""What fits into the GPU of a lane beside the backbone: whole batches, parts of them, or nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.common.units import size
from orchestrator.planning.capability.restrict_space import extremes
from orchestrator.planning.estimates import StepCost
from orchestrator.planning.task_estimates import TaskEstimates
from search_spaces._base import SearchSpace

Params = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class GpuFit:
    """How a configuration trains on a GPU.

    Args:
        rows: rows that pass through the model at once; the others of the batch follow, with accumulated gradients.
        batch_size: rows of a batch.
        cost: cost of the step with these rows.
    """

    rows: int
    batch_size: int
    cost: StepCost

    def fields(self) -> dict[str, Any]:
        """Return the fields of the JSON output of ``plan``."""
        return {"rows_at_once": self.rows, "batch_size": self.batch_size, "peak_memory_bytes": self.cost.peak_bytes}


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

        A lane that runs out of memory halves what passes at once until it fits.
        """
        batch_size = int(params.get("batch_size", 1))
        whole = self.estimates.cost(method, params, batch_size)
        if whole is None or whole.peak_bytes <= self.room_bytes:
            return None if whole is None else GpuFit(rows=batch_size, batch_size=batch_size, cost=whole)
        one = self.estimates.cost(method, params, 1)
        if one is None or one.peak_bytes > self.room_bytes:
            return None
        per_row = (whole.peak_bytes - one.peak_bytes) / max(1, batch_size - 1)
        for rows in _halvings(batch_size):
            if one.peak_bytes + per_row * (rows - 1) > self.room_bytes:
                continue  # the peak grows linearly; only what may fit is worth an estimate
            cost = self.estimates.cost(method, params, rows)
            if cost is not None and cost.peak_bytes <= self.room_bytes:
                return GpuFit(rows=rows, batch_size=batch_size, cost=cost)
        return GpuFit(rows=1, batch_size=batch_size, cost=one)

    def excess(self, method: str, params: Params) -> float:
        """Return by which fraction of the room one row exceeds it; at most 0 if it fits, or if that is unknown."""
        cost = self.estimates.cost(method, params, 1)
        return -1.0 if cost is None else cost.peak_bytes / self.room_bytes - 1

    def refusal(self, method: str, params: Params) -> str:
        """Return why a configuration cannot train on the GPU, one line; empty if it can."""
        cost = self.estimates.cost(method, params, 1)
        if cost is None or cost.peak_bytes <= self.room_bytes:
            return ""
        return (
            f"one row of {self.estimates.lengths.longest:,} tokens takes {size(cost.peak_bytes)}, "
            f"and the GPU has {size(self.room_bytes)} beside the backbone"
        )

    def holds_all_of(self, method: str, space: SearchSpace) -> bool:
        """Return whether the largest configuration of a search space fits as well, so that none need be checked."""
        largest, few = self._largest(method, space)
        # Embeddings and logits exist once in a backbone with few layers too, so this is more than all layers take.
        if few * self.estimates.layers_per_few_layers <= self.room_bytes:
            return True
        return self.excess(method, largest) <= 0

    def _largest(self, method: str, space: SearchSpace) -> tuple[dict[str, Any], float]:
        """Return the configuration in which each parameter in turn has the end or choice that takes the most.

        Beside it stands the memory that it takes in a backbone with few layers, in bytes.
        """
        params = dict(space.default)
        for name, distribution in space.distributions.items():
            options = [params, *({**params, name: value} for value in extremes(distribution))]
            params = max(options, key=lambda option: self._bytes_in_few_layers(method, option))
        return params, self._bytes_in_few_layers(method, params)

    def _bytes_in_few_layers(self, method: str, params: Params) -> float:
        cost = self.estimates.cost_in_few_layers(method, params)
        return -math.inf if cost is None else cost.peak_bytes


def _halvings(batch_size: int) -> Iterator[int]:
    """Yield the rows of the largest part of a batch that is split into 1, 2, 4, ... parts, down to one row."""
    parts = 1
    while (rows := math.ceil(batch_size / parts)) > 1:
        yield rows
        parts *= 2
    yield 1
