"""What a training step asks of numbers, answered where there are none: on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
FORWARD, BACKWARD = 2, 5
"""Products of every query with every key: for weights and output; once more for the weights, and for four gradients."""


class _FusedAttention(torch.autograd.Function):
    """Attention as fused kernels keep it: its inputs, its output and a float32 per query, but no matrix of weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Shapes ``(batch, heads, tokens, width)`` to the query's; in memory the output is ordered by token."""
        batch, heads, tokens, _ = query.shape
        output = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
        sums = query.new_empty(batch, heads, tokens, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """One gradient per input."""
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


class MetaKernels(TorchFunctionMode):
    """Attention and dropout as a processor or a GPU does them; the meta device knows the plain formulas alone.

    Args:
        count: told how many operations attention takes, those of the backward pass included.
        cuda: whether a GPU is to do them.
    """

    def __init__(self, count: Callable[[float], None], *, cuda: bool) -> None:
        super().__init__()
        self._count, self._cuda = count, cuda

    def __torch_function__(self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Every call of torch passes here."""
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention and (self._cuda or not kwargs.get("dropout_p")):
            return self._attention(*args, **kwargs)
        if function is F.dropout and not self._cuda:
            return _dropout(*args, **kwargs)
        return function(*args, **kwargs)

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        product = 2.0 * query.numel() * key.shape[-2]
        trains = any(one.requires_grad for one in (query, key, value))
        self._count(FORWARD * product + (BACKWARD * product if trains else 0))
        if attn_mask is not None and attn_mask.dtype == torch.bool:  # kernels add masks, each call its own
            attn_mask = query.new_empty(attn_mask.shape)
        output: Tensor = _FusedAttention.apply(query, key, value, attn_mask)
        return output


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """On a processor, what is kept is a factor for each number, as wide as the number."""
    if not training or not p:
        return x
    factors = torch.empty_like(x).bernoulli_(1 - p)
    return x.mul_(factors) if inplace else x * factors


def meta_results(counted: int) -> Mapping[Any, Callable[..., Any]]:
    """What to answer for the operators that cannot do without numbers.

    Args:
        counted: how many places of any mask are true.
    """

    def index(tensor: Tensor, indices: Sequence[Tensor | None]) -> Any:
        return aten.index.Tensor(tensor, [place for one in indices for place in _places(one, counted)])

    return {
        aten.nonzero.default: lambda mask: mask.new_empty(counted, mask.dim(), dtype=torch.int64),
        aten.index.Tensor: index,
        aten.index_put_.default: lambda tensor, *rest, **others: tensor,
        aten._index_put_impl_.default: lambda tensor, *rest, **others: tensor,
        aten.index_put.default: lambda tensor, *rest, **others: torch.empty_like(tensor),
        aten._local_scalar_dense.default: _number,
    }


def _places(index: Tensor | None, counted: int) -> list[Tensor | None]:
    """Positions in the place of a mask, one tensor for each of its dimensions."""
    if index is None or index.dtype != torch.bool:
        return [index]
    return [index.new_empty(counted, dtype=torch.int64)] * index.dim()


def _number(tensor: Tensor) -> bool | int | float:
    """A mask is not all true: some rows are padded."""
    return False if tensor.dtype == torch.bool else 1.0 if tensor.is_floating_point() else 1
