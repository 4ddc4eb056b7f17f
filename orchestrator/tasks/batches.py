"""Which rows make up a batch. Pure numpy: the same numbers on every machine and in every lane.

All trials read one stream of rows, whatever their batch size: the order of an epoch follows from hashes of
(seed, epoch, row id), so that trials are compared on common random numbers, a trial can continue at any step,
and the order of the other rows stays the same when a row is added or removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Batches = Sequence[Indices]
"""Row indices of each batch."""
POOL_ROWS = 64
BUCKET_ROWS = 32
EVALUATION_TOKENS = 16_384
"""Tokens that are scored at once, with padding: enough for any GPU to compute at its full speed."""


def training_batches(
    lengths: NDArray[np.integer], row_ids: NDArray[np.integer], seed: int, batch_size: int, start: int, stop: int
) -> Iterator[Indices]:
    """Iterate over the batches of optimizer steps ``start`` to ``stop - 1``: consecutive slices of an endless stream.

    Args:
        lengths: Tokens of each row, shape ``(rows,)``.
        row_ids: Number that identifies each row, shape ``(rows,)``.
        seed: Seed of the order.
        batch_size: Rows per step.
        start: Optimizer steps already done.
        stop: Step to stop before.

    Yields:
        Indices of ``batch_size`` rows.
    """
    rows, order, ordered_epoch = len(lengths), np.empty(0, np.int64), -1
    for step in range(start, stop):
        slices, position, end = [], step * batch_size, (step + 1) * batch_size
        while position < end:
            if (epoch := position // rows) != ordered_epoch:
                order, ordered_epoch = epoch_order(lengths, row_ids, seed, epoch), epoch
            indices = order[position - epoch * rows : end - epoch * rows]
            slices.append(indices)
            position += len(indices)
        yield np.concatenate(slices)


def epoch_order(lengths: NDArray[np.integer], row_ids: NDArray[np.integer], seed: int, epoch: int) -> Indices:
    """Return the stream of one epoch: every row once, rows of similar length together.

    Rows are permuted, cut into pools, sorted by length within a pool, and cut into buckets, which are shuffled.
    """
    shuffled = np.argsort(hashes(row_ids, seed, epoch), kind="stable")
    pools = np.arange(len(shuffled)) // POOL_ROWS
    by_length = shuffled[np.lexsort((lengths[shuffled], pools))]
    buckets = len(by_length) // BUCKET_ROWS
    order = np.argsort(hashes(np.arange(buckets), seed, ~epoch), kind="stable")
    in_buckets = by_length[: buckets * BUCKET_ROWS].reshape(buckets, BUCKET_ROWS)[order]
    # The rows that do not fill a bucket come last, so that batches that divide a bucket stay inside one.
    return np.concatenate([in_buckets.ravel(), by_length[buckets * BUCKET_ROWS :]])


def evaluation_batches(lengths: NDArray[np.integer], batch_size: int, tokens: int = EVALUATION_TOKENS) -> list[Indices]:
    """Return batches with every row once, sorted by length so that there is little padding.

    Args:
        lengths: Tokens of each row, shape ``(rows,)``.
        batch_size: Rows per batch, at most.
        tokens: Tokens per batch with its padding, at most; a longer row is a batch of its own.
    """
    order = np.argsort(lengths, kind="stable")
    batches, first = [], 0
    while first < len(order):
        longest = lengths[order[first : first + batch_size]]
        # Rows are sorted, so that the last one of a batch is as long as all are padded to.
        fitting = np.flatnonzero(longest * np.arange(1, len(longest) + 1) <= tokens)
        stop = first + (int(fitting[-1]) + 1 if len(fitting) else 1)
        batches.append(order[first:stop])
        first = stop
    return batches


def evaluation_rows(longest: int, batch_size: int, tokens: int = EVALUATION_TOKENS) -> int:
    """Return how many rows of ``longest`` tokens :func:`evaluation_batches` puts into a batch."""
    return min(batch_size, max(1, tokens // longest))


def subset(row_ids: NDArray[np.integer], count: int, seed: int, labels: NDArray[np.integer] | None = None) -> Indices:
    """Draw a fixed subset of the rows, in their order.

    Args:
        row_ids: Number that identifies each row, shape ``(rows,)``.
        count: Number of rows to draw; all rows if there are fewer.
        seed: Seed of the draw.
        labels: Class of each row; the classes keep their shares (to the nearest row).
    """
    if count >= len(row_ids):
        return np.arange(len(row_ids))
    keys = hashes(row_ids, seed, -1)
    if labels is None:
        return np.sort(np.argsort(keys, kind="stable")[:count])
    # A row's rank within its class, as a fraction of the class: the smallest ranks have every class's share.
    order = np.lexsort((keys, labels))
    sizes = np.unique(labels, return_counts=True)[1]
    ranks = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    return np.sort(order[np.lexsort((keys[order], ranks))[:count]])


def class_by_class(row_ids: NDArray[np.integer], labels: NDArray[np.integer], seed: int) -> Indices:
    """Return all rows in an order in which every class comes once before any class comes twice.

    Args:
        row_ids: Number that identifies each row, shape ``(rows,)``.
        labels: Class of each row.
        seed: Seed of the order.
    """
    keys = hashes(row_ids, seed, -2)
    order = np.lexsort((keys, labels))
    rounds = np.concatenate([np.arange(size) for size in np.unique(labels, return_counts=True)[1]])
    return order[np.lexsort((keys[order], rounds))]


def hashes(values: NDArray[np.integer], seed: int, stream: int) -> NDArray[np.uint64]:
    """Return a pseudo-random number per value (SplitMix64's finalizer, Steele et al. 2014).

    Args:
        values: Integers, each hashed by itself.
        seed: Seed; every seed gives other numbers.
        stream: Purpose of the numbers; every stream gives other numbers.
    """
    start = np.array([seed, stream], np.int64).view(np.uint64)
    key = _mix(_mix(start[:1]) ^ _mix(start[1:] + np.uint64(0x632BE59BD9B4E019)))
    return _mix(np.asarray(values, np.int64).view(np.uint64) + key)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed
