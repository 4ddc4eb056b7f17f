"""A batch in micro-batches, for trials whose whole batch does not fit; their gradients add up to the batch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

Batch = dict[str, Tensor]


def split_micro_batches(batch: Batch, count: int, loss_terms: Callable[[Batch], int]) -> Iterator[tuple[Batch, float]]:
    """Split a batch into consecutive rows, each part with its weight in the batch's mean loss.

    Args:
        batch: tensors of shape ``(rows, ...)``.
        count: number of micro-batches, at most the number of rows.
        loss_terms: counts the terms of a batch's mean loss; the task type's.

    Yields:
        A micro-batch, padded as the batch is, and the fraction of the loss's terms in it. A micro-batch without any
        term is left out: its mean loss would be NaN.
    """
    if count <= 1:
        yield batch, 1.0
        return
    total = loss_terms(batch)
    names = list(batch)
    for tensors in zip(*(batch[name].tensor_split(count) for name in names), strict=True):
        micro_batch = dict(zip(names, tensors, strict=True))
        if terms := loss_terms(micro_batch):
            yield micro_batch, terms / total
