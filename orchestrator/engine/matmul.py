"""One frozen matrix product for the inputs of several trials: the weight is dequantized once.

On a processor every trial's result has the same bits as without its neighbours: inputs of several trials are stacked
into one matrix only where that does not change the result, which is tried once for each kind of product. The weight is
dequantized and read once, and a product of more rows takes less time per row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from orchestrator.backbone.frozen import linear
from orchestrator.backbone.weights import FrozenWeight
from orchestrator.engine.row_independence import stackable_rows

CHUNK_ROWS = 1024
"""Most rows that are multiplied at once: more do not use a core better, and no longer fit into its cache beside the
weight. One trial's rows are never divided."""
GPU_CHUNK_ROWS = 16_384
"""The same for a GPU, which large products fill better; the copy that stacks them takes memory. Not measured yet."""


def shared_matmul(
    weight: FrozenWeight, dtype: torch.dtype, inputs: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Return ``x W^T + b`` for every ``x`` in ``inputs``.

    Args:
        weight: frozen weight ``W`` of shape ``(out, in)``.
        dtype: dtype of the multiplication.
        inputs: one tensor per trial, each of shape ``(..., in)`` and of its own dtype.
        biases: one frozen bias per trial, of shape ``(out,)``, or ``None``.

    Returns:
        One tensor per trial, of shape ``(..., out)`` and of the dtype of its input. Tensors of several trials may be
        views of one tensor.
    """
    if not any(x.requires_grad for x in inputs):  # as in generation: many products of few rows
        return _matmul(weight, dtype, biases, inputs)
    outputs: tuple[Tensor, ...] = _SharedMatmul.apply(weight, dtype, biases, *inputs)
    return outputs


def _matmul(
    weight: FrozenWeight,
    dtype: torch.dtype,
    biases: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    casts_alone: bool = False,
) -> tuple[Tensor, ...]:
    matrix = weight.dequantize(dtype)
    limits = _row_limits(inputs, matrix, transposed=False)
    products = _matmul_in_chunks(
        inputs, biases, dtype, limits, lambda rows, bias: linear(rows, matrix, bias), casts_alone
    )
    return tuple(products)


class _SharedMatmul(torch.autograd.Function):
    """Computes gradients of the inputs alone, and only for the inputs that require them."""

    @staticmethod
    def forward(
        ctx: Any, weight: FrozenWeight, dtype: torch.dtype, biases: Sequence[Tensor | None], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.weight, ctx.dtype = weight, dtype
        ctx.set_materialize_grads(False)
        return _matmul(weight, dtype, biases, inputs, casts_alone=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        required = [g is not None and ctx.needs_input_grad[3 + k] for k, g in enumerate(gradients)]
        outer = [g for g, needed in zip(gradients, required, strict=True) if needed and g is not None]
        if not outer:
            return None, None, None, *(None for _ in gradients)
        matrix = ctx.weight.dequantize(ctx.dtype)
        limits = _row_limits(outer, matrix, transposed=True)
        inner = _matmul_in_chunks(outer, [None] * len(outer), ctx.dtype, limits, lambda rows, _: rows @ matrix)
        return None, None, None, *(next(inner) if needed else None for needed in required)


def max_rows(device: torch.device) -> int:
    """Return the most rows that are multiplied at once on a device."""
    return GPU_CHUNK_ROWS if device.type == "cuda" else CHUNK_ROWS


def _row_limits(inputs: Sequence[Tensor], matrix: Tensor, *, transposed: bool) -> tuple[int, int]:
    """Return the fewest rows of a tensor that is stacked, and the most rows of a stack; 0 rows stack nothing."""
    if matrix.is_cuda:
        return 1, GPU_CHUNK_ROWS
    if len(inputs) == 1:
        return 0, 0
    least, most = stackable_rows(matrix, transposed)
    return least, min(most, CHUNK_ROWS)


def _matmul_in_chunks(
    inputs: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    dtype: torch.dtype,
    limits: tuple[int, int],
    matmul: Callable[[Tensor, Tensor | None], Tensor],
    casts_alone: bool = True,
) -> Iterator[Tensor]:
    """Yield the product of every tensor, computed for as many trials at once as fit into a chunk.

    What autograd keeps of a trial must not hold its neighbours' rows, so that with gradients each output has a cast,
    and so memory, of its own; without them one cast of all rows takes less time.
    """
    for chunk, bias in _chunks(inputs, biases, limits):
        if len(chunk) == 1:
            yield matmul(chunk[0].to(dtype), bias).to(chunk[0].dtype)
            continue
        counts = [_row_count(x) for x in chunk]
        output = matmul(_stack(chunk, counts, dtype), bias)
        if not casts_alone and all(x.dtype == chunk[0].dtype for x in chunk):
            output = output.to(chunk[0].dtype)
        for x, rows in zip(chunk, output.split(counts), strict=True):
            yield rows.view(*x.shape[:-1], -1).to(x.dtype)


def _stack(chunk: Sequence[Tensor], counts: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Copy all rows into one matrix and cast them on the way, so that the cast costs no copy of its own."""
    stacked = torch.empty(sum(counts), chunk[0].shape[-1], dtype=dtype, device=chunk[0].device)
    for x, target in zip(chunk, stacked.split(list(counts)), strict=True):
        target.view(x.shape).copy_(x)
    return stacked


def _chunks(
    inputs: Sequence[Tensor], biases: Sequence[Tensor | None], limits: tuple[int, int]
) -> Iterator[tuple[list[Tensor], Tensor | None]]:
    """Yield runs of neighbouring inputs that can be stacked, each with the bias that they have in common."""
    chunk: list[Tensor] = []
    last_bias: Tensor | None = None
    rows = fewest = 0
    least, most = limits
    for x, bias in zip(inputs, biases, strict=True):
        count = _row_count(x)
        if chunk and not (bias is last_bias and rows + count <= most and min(count, fewest) >= least):
            yield chunk, last_bias
            chunk = []
        rows, fewest = (rows + count, min(count, fewest)) if chunk else (count, count)
        chunk.append(x)
        last_bias = bias
    yield chunk, last_bias


def _row_count(x: Tensor) -> int:
    return x.numel() // x.shape[-1]
