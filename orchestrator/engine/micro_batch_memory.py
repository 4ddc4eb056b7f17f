"""The step sizes that fit into a worker's memory, learned from steps that ran out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import torch

from orchestrator.engine.scoring_limits import ScoringLimits
from orchestrator.engine.step_size import StepSize

TRIALS_PER_LIMIT = 8


class MicroBatchMemory:
    """The number of tokens that fit into memory at once, by method, with and without checkpointed blocks.

    A step that runs out of memory is repeated at smaller sizes, which costs the time of the step. The next trial of the
    same method would pay the same price, so it starts with a size that fits. What took the memory may be gone later (a
    neighbour on the same GPU, trials that are kept beside), so a method's limits hold for eight trials; the next one
    tries its whole batch again.

    Args:
        expected_limits: tokens that are expected to fit without checkpointed blocks, by method; others fit as far as is
            known.
    """

    def __init__(self, expected_limits: Mapping[str, int] = MappingProxyType({})) -> None:
        self._token_limits = {(method, False): limit for method, limit in expected_limits.items()}
        self._limited_trials: Counter[str] = Counter()
        self.scoring = ScoringLimits()

    def record_out_of_memory(self, method: str, tokens: int, checkpointed: bool = False) -> None:
        """Halve a method's token limit.

        Args:
            method: name of the method.
            tokens: tokens of the micro-batch that did not fit, padding included.
            checkpointed: whether its blocks were checkpointed.
        """
        key, half = (method, checkpointed), max(1, tokens // 2)
        self._token_limits[key] = min(self._token_limits.get(key, half), half)

    def fitting_size(self, method: str, rows: int, tokens: int, device: torch.device) -> StepSize:
        """Return the step size that a new trial starts with.

        Args:
            method: name of the method.
            rows: rows of the batch.
            tokens: tokens of the batch, padding included.
            device: device that computes.
        """
        size = StepSize()
        while not self._fits(method, tokens, size) and (smaller := size.smaller(rows, tokens, device)):
            size = smaller
        if size != StepSize():
            self._count_limited_trial(method)
        return size

    def _fits(self, method: str, tokens: int, size: StepSize) -> bool:
        limit = self._token_limits.get((method, size.checkpointed))
        return limit is None or tokens <= size.micro_batches * limit

    def _count_limited_trial(self, method: str) -> None:
        self._limited_trials[method] += 1
        if self._limited_trials[method] == TRIALS_PER_LIMIT:
            for checkpointed in (False, True):
                self._token_limits.pop((method, checkpointed), None)
            del self._limited_trials[method]
