"""One frozen product for the rows of several trials: the weight is unpacked once, and no row is copied twice.

On a processor every trial's result has the bits that it would have alone: rows of several trials stand in one matrix
only where that makes no difference. What is gained is mostly the unpacking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from orchestrator.backbone.frozen import linear
from orchestrator.backbone.weights import FrozenWeight

CHUNK = 1024
"""Rows that are multiplied at once, at most: more fill no core better, and no longer fit beside the weight in its
cache. A trial's own rows are never parted."""
EXACT = 384
"""Terms of a sum up to which a processor's bfloat16 products give a row the same bits whatever rows stand beside it,
measured with AMX. Longer sums are parted in ways that depend on the number of rows; so are float32's of any length."""


def shared_matmul(
    weight: FrozenWeight, dtype: torch.dtype, inputs: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """``x W^T + b`` for every ``x`` in ``inputs``, each of shape ``(..., in)`` and of a dtype of its own.

    Args:
        weight: of shape ``(out, in)``.
        dtype: what to multiply in.
        inputs: of as many trials.
        biases: of each, frozen and of shape ``(out,)``, or none.

    Returns:
        As many tensors of shape ``(..., out)``, each in the dtype of its input. Those of several trials may be views
        of one tensor.
    """
    products: tuple[Tensor, ...] = _SharedMatmul.apply(weight, dtype, biases, *inputs)
    return products


class _SharedMatmul(torch.autograd.Function):
    """Gradients of ``x`` alone, and only of those that ask for one."""

    @staticmethod
    def forward(
        ctx: Any, weight: FrozenWeight, dtype: torch.dtype, biases: Sequence[Tensor | None], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.weight, ctx.dtype = weight, dtype
        ctx.set_materialize_grads(False)
        dense = weight.dequantize(dtype)
        return tuple(_matmul(inputs, biases, dtype, lambda rows, bias: linear(rows, dense, bias)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted = [g is not None and ctx.needs_input_grad[3 + k] for k, g in enumerate(gradients)]
        asked = [g for g, want in zip(gradients, wanted, strict=True) if want and g is not None]
        if not asked:
            return None, None, None, *(None for _ in gradients)
        dense = ctx.weight.dequantize(ctx.dtype)
        found = _matmul(asked, [None] * len(asked), ctx.dtype, lambda rows, _: rows @ dense)
        return None, None, None, *(next(found) if want else None for want in wanted)


def _matmul(
    inputs: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    dtype: torch.dtype,
    product: Callable[[Tensor, Tensor | None], Tensor],
) -> Iterator[Tensor]:
    """The product of every tensor's rows, of as many trials at once as a chunk holds."""
    for chunk, bias in _chunks(inputs, biases, dtype):
        if len(chunk) == 1:
            yield product(chunk[0].to(dtype), bias).to(chunk[0].dtype)
            continue
        counts = [_rows(x) for x in chunk]
        parts = product(_stacked(chunk, counts, dtype), bias).split(counts)
        for x, part in zip(chunk, parts, strict=True):
            yield part.reshape(*x.shape[:-1], -1).to(x.dtype)


def _stacked(chunk: Sequence[Tensor], counts: Sequence[int], dtype: torch.dtype) -> Tensor:
    """All rows in one matrix: the cast that each needs anyway is what brings them there."""
    rows = torch.empty(sum(counts), chunk[0].shape[-1], dtype=dtype, device=chunk[0].device)
    for x, part in zip(chunk, rows.split(list(counts)), strict=True):
        part.view(x.shape).copy_(x)
    return rows


def _chunks(
    inputs: Sequence[Tensor], biases: Sequence[Tensor | None], dtype: torch.dtype
) -> Iterator[tuple[list[Tensor], Tensor | None]]:
    """Neighbours that have the same bias."""
    chunk: list[Tensor] = []
    last: Tensor | None = None
    for x, bias in zip(inputs, biases, strict=True):
        fits = bias is last and _mergeable(x, dtype) and sum(map(_rows, chunk)) + _rows(x) <= CHUNK
        if chunk and not fits:
            yield chunk, last
            chunk = []
        chunk.append(x)
        last = bias
    yield chunk, last


def _mergeable(x: Tensor, dtype: torch.dtype) -> bool:
    return x.is_cuda or (dtype == torch.bfloat16 and x.shape[-1] <= EXACT)


def _rows(x: Tensor) -> int:
    return x.numel() // x.shape[-1]
