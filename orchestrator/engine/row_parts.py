"""Division of a batch into the rows of each trial, and back, in few calls also in the backward pass.

The backward passes of torch's own ``split`` and ``cat`` call an operator for each part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def split_tensor(x: Tensor, counts: Sequence[int]) -> Sequence[Tensor]:
    """Return parts of the first dimension of ``x``; each may be changed in place, if nothing else reads its rows.

    Args:
        x: tensor of shape ``(sum(counts), ...)``.
        counts: length of each part.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return torch.unsafe_split_with_sizes(x, list(counts))
    parts: tuple[Tensor, ...] = _Split.apply(x, list(counts))
    return parts


def join_tensors(parts: Sequence[Tensor]) -> Tensor:
    """Return the parts below one another, of shape ``(sum of rows, ...)``."""
    needs_gradient = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    if not needs_gradient or any(part.dtype != parts[0].dtype for part in parts):  # torch casts gradients back
        return torch.cat(list(parts))
    joined: Tensor = _Join.apply(*parts)
    return joined


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int]) -> tuple[Tensor, ...]:
        ctx.shape, ctx.counts = x.shape, counts
        ctx.set_materialize_grads(False)
        return tuple(torch.unsafe_split_with_sizes(x, counts))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        present = [gradient for gradient in gradients if gradient is not None]
        if len(present) == len(gradients):
            return torch.cat(present), None
        if not present:
            return None, None
        whole = present[0].new_zeros(ctx.shape)
        parts = zip(whole.split(ctx.counts), gradients, strict=True)
        torch._foreach_copy_([part for part, gradient in parts if gradient is not None], present)
        return whole, None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.counts = [part.shape[0] for part in parts]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient.split(ctx.counts))
