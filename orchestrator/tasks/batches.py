"""Which rows make up a batch. Pure numpy: the same numbers on every machine and in every lane.

All trials see one stream of rows, whatever their batch size: the order of an epoch follows from hashes of
(seed, epoch, row id), so that trials are compared on common random numbers, a trial can continue at any step,
and a row more or less leaves the order of the others alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
POOL = 64
BUCKET = 32


def training_batches(
    lengths: NDArray[np.integer], row_ids: NDArray[np.integer], seed: int, batch_size: int, start: int, stop: int
) -> Iterator[Indices]:
    """The batches of optimizer steps ``start`` to ``stop - 1``; consecutive slices of one endless stream.

    Args:
        lengths: tokens of each row, shape ``(rows,)``.
        row_ids: what identifies each row, shape ``(rows,)``.
        seed: of the order.
        batch_size: rows per step.
        start: optimizer steps already done.
        stop: the step to stop before.

    Yields:
        Indices of ``batch_size`` rows.
    """
    rows, order, present = len(lengths), np.empty(0, np.int64), -1
    for step in range(start, stop):
        parts, position, end = [], step * batch_size, (step + 1) * batch_size
        while position < end:
            if (epoch := position // rows) != present:
                order, present = epoch_order(lengths, row_ids, seed, epoch), epoch
            taken = order[position - epoch * rows : end - epoch * rows]
            parts.append(taken)
            position += len(taken)
        yield np.concatenate(parts)


def epoch_order(lengths: NDArray[np.integer], row_ids: NDArray[np.integer], seed: int, epoch: int) -> Indices:
    """The stream of one epoch: every row once, rows of like length together.

    Rows are permuted, cut into pools, sorted by length within a pool, and cut into buckets, which are shuffled.
    """
    shuffled = np.argsort(hashes(row_ids, seed, epoch), kind="stable")
    pools = np.arange(len(shuffled)) // POOL
    by_length = shuffled[np.lexsort((lengths[shuffled], pools))]
    whole = len(by_length) // BUCKET
    order = np.argsort(hashes(np.arange(whole), seed, ~epoch), kind="stable")
    buckets = by_length[: whole * BUCKET].reshape(whole, BUCKET)[order]
    # What does not fill a bucket comes last, so that batches which divide a bucket stay inside one.
    return np.concatenate([buckets.ravel(), by_length[whole * BUCKET :]])


def evaluation_batches(lengths: NDArray[np.integer], batch_size: int) -> list[Indices]:
    """Every row once, sorted by length so that little is padded.

    Args:
        lengths: tokens of each row, shape ``(rows,)``.
        batch_size: rows per batch, at most.
    """
    order = np.argsort(lengths, kind="stable")
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def subset(row_ids: NDArray[np.integer], count: int, seed: int, labels: NDArray[np.integer] | None = None) -> Indices:
    """A fixed part of the rows, in their order.

    Args:
        row_ids: what identifies each row, shape ``(rows,)``.
        count: how many to take; all if there are fewer.
        seed: of the draw.
        labels: class of each row; the classes keep their shares (to the nearest row).
    """
    if count >= len(row_ids):
        return np.arange(len(row_ids))
    keys = hashes(row_ids, seed, -1)
    if labels is None:
        return np.sort(np.argsort(keys, kind="stable")[:count])
    # A row's place within its class, as a fraction of the class: taking the smallest keeps every class's share.
    order = np.lexsort((keys, labels))
    sizes = np.unique(labels, return_counts=True)[1]
    places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    return np.sort(order[np.lexsort((keys[order], places))[:count]])


def in_turn(row_ids: NDArray[np.integer], labels: NDArray[np.integer], seed: int) -> Indices:
    """All rows in an order in which every class comes once before any comes twice, drawn with the seed.

    Args:
        row_ids: what identifies each row, shape ``(rows,)``.
        labels: class of each row.
        seed: of the draw.
    """
    keys = hashes(row_ids, seed, -2)
    order = np.lexsort((keys, labels))
    rounds = np.concatenate([np.arange(size) for size in np.unique(labels, return_counts=True)[1]])
    return order[np.lexsort((keys[order], rounds))]


def hashes(values: NDArray[np.integer], seed: int, stream: int) -> NDArray[np.uint64]:
    """A pseudo-random number per value (SplitMix64's finalizer, Steele et al. 2014), for every seed and stream anew."""
    start = np.array([seed, stream], np.int64).view(np.uint64)
    mixed = _mix(start[:1]) ^ _mix(start[1:] + np.uint64(0x632BE59BD9B4E019))
    return _mix(np.asarray(values, np.int64).view(np.uint64) + _mix(mixed))


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed
