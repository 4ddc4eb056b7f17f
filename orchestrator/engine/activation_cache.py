"""A cache of tensors with a limit in bytes."""

from __future__ import annotations

import random
from collections.abc import Hashable

from torch import Tensor


class ActivationCache:
    """Tensors by key; a random entry is dropped where there is no room for a new one.

    Every epoch reads all rows in turn, so that the oldest or the least recently used entry is the one that is needed
    next. Dropping that one would leave a cache that is too small without any hits; dropping a random one does not.

    Args:
        limit_bytes: most bytes of all tensors together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes, self._random = limit_bytes, random.Random(0)
        self._tensors: dict[Hashable, Tensor] = {}
        self._keys: list[Hashable] = []
        self.bytes = 0

    def get(self, key: Hashable) -> Tensor | None:
        """Return the tensor of a key, or ``None`` if it is not in the cache."""
        return self._tensors.get(key)

    def put(self, key: Hashable, value: Tensor) -> None:
        """Add a tensor, unless it alone exceeds the limit."""
        if key in self._tensors or value.nbytes > self._limit_bytes:
            return
        while self.bytes + value.nbytes > self._limit_bytes:
            self._drop_random()
        self._tensors[key] = value
        self._keys.append(key)
        self.bytes += value.nbytes

    def clear(self) -> None:
        """Drop all tensors."""
        self._tensors.clear()
        self._keys.clear()
        self.bytes = 0

    def _drop_random(self) -> None:
        index = self._random.randrange(len(self._keys))
        self._keys[index], self._keys[-1] = self._keys[-1], self._keys[index]
        self.bytes -= self._tensors.pop(self._keys.pop()).nbytes
