"""Count the bytes, FLOPs and operator calls of any computation in torch."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class CostCounter(TorchDispatchMode):
    """Counts memory and work while it is active.

    It follows every tensor that an operator creates until the tensor's memory is freed. Views share memory, and are not
    counted. It works on the meta device, where tensors have shapes and no data, and on any other device.

    Attributes:
        alive_bytes: bytes of the counted tensors that exist now.
        peak_bytes: largest value of ``alive_bytes`` so far.
        flops: floating-point operations of matrix products and attention.
        bytes_moved: bytes that operators read and wrote.
        calls: operators that were called.
        operators: each of them, with the bytes that it created and ``alive_bytes`` after it.

    Args:
        overrides: functions to call in the place of operators.
    """

    def __init__(self, overrides: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self._overrides = overrides
        self._storages: dict[int, weakref.ref[Any]] = {}
        self.alive_bytes, self.peak_bytes = 0, 0
        self.flops, self.bytes_moved, self.calls = 0.0, 0.0, 0
        self.operators: list[tuple[Any, int, int]] = []

    def exclude(self, tensors: Iterable[Tensor]) -> int:
        """Exclude tensors that exist already from the count. Returns the bytes of newly excluded tensors."""
        return sum(self._follow(tensor, counted=False) for tensor in tensors)

    def add_flops(self, flops: float) -> None:
        """Add floating-point operations that torch's own registry of formulas does not cover."""
        self.flops += flops

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count it; torch calls this for each one, in the backward pass too."""
        kwargs = kwargs or {}
        result = self._overrides.get(func, func)(*args, **kwargs)
        new_bytes = sum(self._follow(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        self.calls += 1
        self.operators.append((func, new_bytes, self.alive_bytes))
        if formula := flop_registry.get(func.overloadpacket):
            self.add_flops(formula(*args, **kwargs, out_val=result))
        if new_bytes:  # a view allocates nothing, and moves nothing
            self.bytes_moved += new_bytes + sum(leaf.nbytes for leaf in tree_leaves(args) if isinstance(leaf, Tensor))
        return result

    def _follow(self, tensor: Tensor, *, counted: bool = True) -> int:
        """Follow a tensor's memory until it is freed. Returns its bytes, or 0 if it is followed already."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return 0

        def on_freed(_: Any) -> None:
            del self._storages[key]
            self.alive_bytes -= size if counted else 0

        self._storages[key] = weakref.ref(storage, on_freed)
        self.alive_bytes += size if counted else 0
        self.peak_bytes = max(self.peak_bytes, self.alive_bytes)
        return size
