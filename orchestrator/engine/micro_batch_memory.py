"""The batch sizes that fit into a worker's memory, learned from steps that ran out of it."""

from __future__ import annotations


class MicroBatchMemory:
    """The number of tokens that fit into memory at once, by method.

    A step that runs out of memory is repeated in smaller micro-batches, which costs the time of the step. The next
    trial of the same method would pay the same price, so it starts with micro-batches that fit.
    """

    def __init__(self) -> None:
        self._token_limits: dict[str, int] = {}

    def record_out_of_memory(self, method: str, tokens: int) -> None:
        """Halve a method's token limit: a micro-batch of ``tokens``, padding included, did not fit."""
        half = max(1, tokens // 2)
        self._token_limits[method] = min(self._token_limits.get(method, half), half)

    def micro_batch_count(self, method: str, tokens: int) -> int:
        """Return into how many micro-batches to split a batch of ``tokens`` tokens; a power of 2."""
        limit, count = self._token_limits.get(method, tokens), 1
        while tokens > count * limit:
            count *= 2
        return count
