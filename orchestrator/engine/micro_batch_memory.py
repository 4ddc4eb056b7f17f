"""What a lane has learned of its memory by running out of it."""

from __future__ import annotations


class MicroBatchMemory:
    """How many tokens fit, by method.

    A step that runs out of memory is repeated in smaller parts. That costs the step, and the next trial of the method
    would pay as well: it begins with parts that fitted instead.
    """

    def __init__(self) -> None:
        self._most: dict[str, int] = {}

    def tell(self, method: str, tokens: int) -> None:
        """So many tokens of a method's batch, padding included, were too many at once: half of them may do."""
        half = max(1, tokens // 2)
        self._most[method] = min(self._most.get(method, half), half)

    def parts(self, method: str, tokens: int) -> int:
        """In how many parts a batch of so many tokens is to be trained; a power of 2."""
        most, count = self._most.get(method, tokens), 1
        while tokens > count * most:
            count *= 2
        return count
