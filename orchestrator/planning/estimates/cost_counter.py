"""Counts what a computation allocates, computes and moves, whatever the computation is."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class CostCounter(TorchDispatchMode):
    """Keeps account of every tensor that is made while it is active, until the tensor goes.

    It works where tensors have sizes and no numbers, on the meta device, as well as anywhere else. Views are free.

    Args:
        answers: what is called in the place of an operator.
    """

    def __init__(self, answers: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self._answers = answers
        self._known: dict[int, weakref.ref[Any]] = {}
        self.alive, self.peak = 0, 0
        self.flops, self.bytes_moved, self.calls = 0.0, 0.0, 0

    def know(self, tensors: Iterable[Tensor]) -> int:
        """These were there before, and are not counted as new. Returns their bytes."""
        return sum(self._enter(tensor, counted=False) for tensor in tensors)

    def count(self, flops: float) -> None:
        """So many floating-point operations more."""
        self.flops += flops

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operator passes here, those of the backward pass too."""
        kwargs = kwargs or {}
        result = self._answers.get(func, func)(*args, **kwargs)
        made = sum(self._enter(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        self.calls += 1
        if count := flop_registry.get(func.overloadpacket):
            self.count(count(*args, **kwargs, out_val=result))
        if made:  # it was read from somewhere, and written
            self.bytes_moved += made + sum(leaf.nbytes for leaf in tree_leaves(args) if isinstance(leaf, Tensor))
        return result

    def _enter(self, tensor: Tensor, *, counted: bool = True) -> int:
        """Follow a tensor's memory until it goes. Returns its bytes where it is new."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return 0

        def gone(_: Any) -> None:
            del self._known[key]
            self.alive -= size if counted else 0

        self._known[key] = weakref.ref(storage, gone)
        self.alive += size if counted else 0
        self.peak = max(self.peak, self.alive)
        return size
