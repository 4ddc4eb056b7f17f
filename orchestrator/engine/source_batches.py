"""Batches of the source tasks that a trial learns from before its own task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from orchestrator.engine.task_dataset import TaskDataset


def source_batches(
    sources: Sequence[TaskDataset], batch_size: int, start: int, stop: int
) -> Iterator[dict[str, Tensor]]:
    """Yield the collated batches of optimizer steps ``start`` to ``stop - 1``.

    The tasks take turns, one batch each, and every task's rows come in its own training order: a step gets the same
    batch wherever the trial is resumed.

    Args:
        sources: datasets of the tasks, in the order of ``Context.sources``.
        batch_size: rows per step.
        start: number of steps already done.
        stop: step before which to stop.

    Yields:
        Batch as of :meth:`TaskDataset.batch`, with ``task_ids`` of shape ``(rows,)``: the index of the rows' task.
    """
    count = len(sources)
    # Source k has the steps k, k + count, k + 2 count, ...; begins and ends count those before start and before stop.
    begins, ends = ([(step - k + count - 1) // count for k in range(count)] for step in (start, stop))
    streams = [
        source.training_batches(batch_size, begin, end)
        for source, begin, end in zip(sources, begins, ends, strict=True)
    ]
    for step in range(start, stop):
        k = step % count
        batch = sources[k].batch(next(streams[k]))
        yield {**batch, "task_ids": torch.full((len(batch["input_ids"]),), k)}
