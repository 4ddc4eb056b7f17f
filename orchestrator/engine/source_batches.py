"""Batches of the tasks that a trial learns from before its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from orchestrator.engine.task_dataset import TaskDataset


def source_batches(
    sources: Sequence[TaskDataset], batch_size: int, start: int, stop: int
) -> Iterator[dict[str, Tensor]]:
    """Collated batches of optimizer steps ``start`` to ``stop - 1``.

    The tasks take turns, a batch each, and every task's rows come in their own order of training: the same at every
    step wherever a trial is continued.

    Args:
        sources: the tasks, in the order of ``Context.sources``.
        batch_size: rows per step.
        start: steps already done.
        stop: the step to stop before.

    Yields:
        What :meth:`TaskDataset.batch` gives, with ``task_ids`` of shape ``(rows,)``: which of the tasks the rows are of.
    """
    count = len(sources)
    # of all steps before a step, source k has had those that leave k when divided by the number of sources
    begins, ends = ([(step - k + count - 1) // count for k in range(count)] for step in (start, stop))
    streams = [
        rows.training_batches(batch_size, begin, end) for rows, begin, end in zip(sources, begins, ends, strict=True)
    ]
    for step in range(start, stop):
        k = step % count
        indices = next(streams[k])
        yield {**sources[k].batch(indices), "task_ids": torch.full((len(indices),), k)}
