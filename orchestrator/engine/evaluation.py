"""Scoring by all workers of a lane: each scores some of the batches, and every worker gets all predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import nn

from orchestrator.engine.ranks import Ranks
from orchestrator.tasks import Evaluation, TaskType

Batches = Sequence[NDArray[np.int64]]


def evaluate(
    ranks: Ranks, kind: TaskType, model: nn.Module, table: pa.Table, batches: Batches, pad: int, pad_left: bool
) -> Evaluation:
    """Score a model on the rows of the batches, divided among the ranks.

    The batches are those of a single worker, so that a row has the same padding whichever rank scores it. Where a row's
    score depends on the other rows, every rank scores all of them.

    Args:
        ranks: this worker's rank.
        kind: type of the task.
        model: model to score, the same on all ranks.
        table: tokenized rows.
        batches: row indices of every batch.
        pad: id of the padding token.
        pad_left: whether padding goes before the tokens.

    Raises:
        Exception: on every rank, if scoring raised on any rank.
    """
    if ranks.size == 1 or not kind.is_divisible:
        return kind.evaluate(model, table, batches, pad, pad_left)
    shards = [batches[rank :: ranks.size] for rank in range(ranks.size)]
    evaluation = ranks.run_on_all_ranks(lambda: _evaluate_shard(kind, model, table, shards[ranks.rank], pad, pad_left))
    metrics = ranks.broadcast_object(list(evaluation.metrics) if evaluation else [])
    predictions = _merge(ranks.all_gather_bytes(_serialize(evaluation)), shards)
    return Evaluation({metric: kind.score(metric, predictions) for metric in metrics}, predictions)


def _evaluate_shard(
    kind: TaskType, model: nn.Module, table: pa.Table, shard: Batches, pad: int, pad_left: bool
) -> Evaluation | None:
    """Score a rank's batches; ``None`` if there are fewer batches than ranks and this rank has none."""
    return kind.evaluate(model, table, shard, pad, pad_left) if shard else None


def _serialize(evaluation: Evaluation | None) -> bytes:
    if evaluation is None:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, evaluation.predictions.schema) as writer:
        writer.write_table(evaluation.predictions)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def _merge(payloads: Sequence[bytes], shards: Sequence[Batches]) -> pa.Table:
    """Return all predictions in the split's order; each payload has its shard's rows in that order."""
    tables = [pa.ipc.open_stream(payload).read_all() for payload in payloads if payload]
    positions = np.concatenate([np.sort(np.concatenate(shard)) for shard in shards if shard])
    return pa.concat_tables(tables).take(np.argsort(positions, kind="stable")).combine_chunks()
