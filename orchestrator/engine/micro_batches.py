"""A batch in parts, for trials whose whole batch does not fit: the gradients add up to what the whole would give."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

IGNORED = -100


def parts(batch: dict[str, Tensor], count: int) -> Iterator[tuple[dict[str, Tensor], float]]:
    """Consecutive rows of a batch, and each part's weight in the mean that is the batch's loss.

    Args:
        batch: tensors of shape ``(rows, ...)``, with ``labels`` of shape ``(rows,)`` or ``(rows, tokens)``.
        count: of parts; no more than there are rows.

    Yields:
        The part, its padding as it was, and the fraction of the batch's labels that it holds.
    """
    whole = _labels(batch)
    if count <= 1:
        yield batch, 1.0
        return
    names = list(batch)
    for tensors in zip(*(batch[name].tensor_split(count) for name in names), strict=True):
        part = dict(zip(names, tensors, strict=True))
        if weight := _labels(part):
            yield part, weight / whole


def _labels(batch: dict[str, Tensor]) -> int:
    """How many terms the mean has: a row's class, or every token that is predicted; nothing predicts the first."""
    labels = batch["labels"]
    return int((labels[:, 1:] != IGNORED).sum()) if labels.dim() == 2 else len(labels)
