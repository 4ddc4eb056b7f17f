"""Tensors by key, as many as there is room for."""

from __future__ import annotations

import random
from collections.abc import Hashable

from torch import Tensor


class ActivationCache:
    """A random entry goes where there is no room for a new one.

    Random, since epochs come back to all rows in turn: the oldest, and the one that was used least lately, would
    always be the one that is asked for next.

    Args:
        most: bytes that all may take together.
    """

    def __init__(self, most: int) -> None:
        self._most, self._random = most, random.Random(0)
        self._held: dict[Hashable, Tensor] = {}
        self._keys: list[Hashable] = []
        self.bytes = 0

    def get(self, key: Hashable) -> Tensor | None:
        """What is kept under a key, if it still is."""
        return self._held.get(key)

    def put(self, key: Hashable, value: Tensor) -> None:
        """Keep a value, unless it is larger than everything may be."""
        if key in self._held or value.nbytes > self._most:
            return
        while self.bytes + value.nbytes > self._most:
            self._drop()
        self._held[key] = value
        self._keys.append(key)
        self.bytes += value.nbytes

    def _drop(self) -> None:
        chosen = self._random.randrange(len(self._keys))
        self._keys[chosen], self._keys[-1] = self._keys[-1], self._keys[chosen]
        self.bytes -= self._held.pop(self._keys.pop()).nbytes
