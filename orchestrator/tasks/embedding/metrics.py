"""Metrics of retrieval: where the relevant candidates of each anchor stand among all candidates.

A row is an anchor and one of its positives. The unit is the anchor: the value of one with several positives counts
once, at its first row, in the score and in every resample.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.tasks.row_sums import Floats, RowSums
from orchestrator.tasks.tokens import integers

CHUNK_SIMILARITIES = 2**24
"""Similarities in memory at a time: 64 MiB."""
ValueOfRanks = Callable[[NDArray[np.int64]], float]
"""From the ranks of an anchor's relevant candidates, in ascending order and counted from 1, to its score."""


def ranks(
    anchors: NDArray[np.float32], candidates: NDArray[np.float32], positives: NDArray[np.int64], own: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Return the rank of each row's positive among all candidates by similarity to the row's anchor, from 1 on.

    A candidate that is as similar as the positive stands before it, so that a model that gives all texts the same
    vector is not at the top.

    Args:
        anchors: Vectors of the rows' anchors, of shape ``(rows, width)``.
        candidates: Vectors of the distinct candidates, of shape ``(candidates, width)``.
        positives: Candidate that is the row's positive, of shape ``(rows,)``.
        own: Candidate that is the anchor's own text and does not compete, -1 where there is none.
    """
    size = max(1, CHUNK_SIMILARITIES // len(candidates))
    result = np.empty(len(anchors), np.int32)
    for first in range(0, len(anchors), size):
        rows = slice(first, first + size)
        similarities = anchors[rows] @ candidates.T
        numbers = np.arange(len(similarities))
        competing = np.flatnonzero((own[rows] >= 0) & (own[rows] != positives[rows]))
        similarities[competing, own[rows][competing]] = -np.inf
        result[rows] = (similarities >= similarities[numbers, positives[rows]][:, None]).sum(axis=1)
    return result


def recall_at(ranks_of_anchor: NDArray[np.int64], most: int) -> float:
    """Return the share of the relevant candidates that are among the first."""
    return float((ranks_of_anchor <= most).mean())


def reciprocal_rank(ranks_of_anchor: NDArray[np.int64]) -> float:
    """Return 1 divided by the rank of the first relevant candidate."""
    return 1 / float(ranks_of_anchor[0])


def ndcg_at(ranks_of_anchor: NDArray[np.int64], most: int) -> float:
    """Return the discounted cumulative gain of the first candidates, divided by that of the best order.

    Järvelin & Kekäläinen, 2002; relevance is 1 or 0.
    """
    best = np.arange(1, min(len(ranks_of_anchor), most) + 1)
    gain = (1 / np.log2(ranks_of_anchor[ranks_of_anchor <= most] + 1)).sum()
    return float(gain / (1 / np.log2(best + 1)).sum())


def _per_anchor(value: ValueOfRanks, predictions: pa.Table) -> Floats:
    """Return the value of an anchor and 1 at its first row, and zeros at its others; shape ``(rows, 2)``."""
    anchors, positions = integers(predictions, "anchor"), integers(predictions, "rank").astype(np.int64)
    order = np.lexsort((positions, anchors))
    _, starts = np.unique(anchors[order], return_index=True)
    result = np.zeros((len(anchors), 2))
    for group in np.split(order, starts[1:]):
        result[group.min()] = value(positions[group]), 1.0
    return result


def _mean(sums: Floats) -> Floats:
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


def _metric(name: str, label: str, value: ValueOfRanks) -> Metric:
    return Metric(name=name, label=label, statistic=RowSums(name, partial(_per_anchor, value), _mean))


NDCG_AT_10 = _metric("ndcg_at_10", "nDCG@10", partial(ndcg_at, most=10))
RECALL_AT_1 = _metric("recall_at_1", "recall@1", partial(recall_at, most=1))
RECALL_AT_10 = _metric("recall_at_10", "recall@10", partial(recall_at, most=10))
MRR = _metric("mrr", "MRR", reciprocal_rank)
