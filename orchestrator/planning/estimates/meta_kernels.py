"""Stand-ins on the meta device for operators whose memory or result depends on data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
AddFlops = Callable[[float], None]
FORWARD_PRODUCTS, BACKWARD_PRODUCTS = 2, 5
"""Matrix products of the size queries x keys in attention. Forward: attention weights and output. Backward: the
attention weights once more, and the gradients of weights, queries, keys and values."""


class _FusedAttention(torch.autograd.Function):
    """Stand-in for a fused attention kernel, which saves inputs, output and one float32 per query."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, add_flops: AddFlops
    ) -> Tensor:
        """Return an output of the query's shape ``(batch, heads, tokens, width)``, ordered by token in memory."""
        batch, heads, tokens, _ = query.shape
        output = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
        sums = query.new_empty(batch, heads, tokens, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, output, sums)
        ctx.add_flops, ctx.flops = add_flops, 2.0 * query.numel() * key.shape[-2]
        add_flops(FORWARD_PRODUCTS * ctx.flops)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Return a gradient for query, key and value."""
        query, key, value, *_ = ctx.saved_tensors
        ctx.add_flops(BACKWARD_PRODUCTS * ctx.flops)
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None, None


class MetaKernels(TorchFunctionMode):
    """Replaces attention and dropout by stand-ins that allocate what the kernels of a CPU or a GPU allocate.

    On the meta device torch would run their plain formulas, which allocate attention weights that real kernels do not.

    Args:
        add_flops: function that receives the FLOPs of each attention, in the forward and in the backward pass.
        cuda: whether to model the kernels of a GPU.
    """

    def __init__(self, add_flops: AddFlops, *, cuda: bool) -> None:
        super().__init__()
        self._add_flops, self._cuda = add_flops, cuda

    def __torch_function__(self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Run a torch function or its stand-in; torch calls this for each function."""
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention and (self._cuda or not kwargs.get("dropout_p")):
            return self._attention(*args, **kwargs)
        if function is F.dropout and not self._cuda:
            return _dropout(*args, **kwargs)
        return function(*args, **kwargs)

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        if (
            attn_mask is not None and attn_mask.dtype == torch.bool
        ):  # kernels convert it to a mask that is added, in each call
            attn_mask = query.new_empty(attn_mask.shape)
        output: Tensor = _FusedAttention.apply(query, key, value, attn_mask, self._add_flops)
        return output


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Apply dropout as a CPU does: it saves a factor of the input's dtype for each element."""
    if not training or not p:
        return x
    factors = torch.empty_like(x).bernoulli_(1 - p)
    return x.mul_(factors) if inplace else x * factors


def meta_results(true_count: int) -> Mapping[Any, Callable[..., Any]]:
    """Return replacements for the operators whose result shape depends on data, which the meta device lacks.

    Args:
        true_count: number of true elements that any mask is taken to have.
    """

    def index(tensor: Tensor, indices: Sequence[Tensor | None]) -> Any:
        return aten.index.Tensor(tensor, [position for mask in indices for position in _positions(mask, true_count)])

    return {
        aten.nonzero.default: lambda mask: mask.new_empty(true_count, mask.dim(), dtype=torch.int64),
        aten.index.Tensor: index,
        aten.index_put_.default: lambda tensor, *_, **__: tensor,
        aten._index_put_impl_.default: lambda tensor, *_, **__: tensor,
        aten.index_put.default: lambda tensor, *_, **__: torch.empty_like(tensor),
        aten._local_scalar_dense.default: _scalar,
    }


def _positions(index: Tensor | None, true_count: int) -> list[Tensor | None]:
    """Return a mask's positions, one tensor for each of its dimensions; another index as it is."""
    if index is None or index.dtype != torch.bool:
        return [index]
    return [index.new_empty(true_count, dtype=torch.int64)] * index.dim()


def _scalar(tensor: Tensor) -> bool | int | float:
    """Return a value for ``tensor.item()``: false for a mask, since models ask whether all tokens are unpadded."""
    return False if tensor.dtype == torch.bool else 1.0 if tensor.is_floating_point() else 1
