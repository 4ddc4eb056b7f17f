"""Scoring with all workers of a lane: each takes some of the batches, and every one gets all predictions."""

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
    ranks: Ranks, kind: TaskType, model: nn.Module, rows: pa.Table, batches: Batches, pad: int, pad_left: bool
) -> Evaluation:
    """Score a model on the rows of the batches, with every rank's help.

    The batches are as they would be for one worker, so that a row is padded alike wherever it is scored.

    Args:
        ranks: this one's place.
        kind: of the task.
        model: to score, the same on all ranks.
        rows: tokenized.
        batches: of their indices.
        pad: the padding token.
        pad_left: whether it goes before the tokens.

    Raises:
        Exception: what this rank's part raised, else what another's did; then every rank raises.
    """
    if ranks.size == 1:
        return kind.evaluate(model, rows, batches, pad, pad_left)
    shares = [batches[rank :: ranks.size] for rank in range(ranks.size)]
    own = ranks.run_on_all_ranks(lambda: _part(kind, model, rows, shares[ranks.rank], pad, pad_left))
    metrics = ranks.broadcast_object(list(own.metrics) if own else [])
    predictions = _in_order(ranks.gather(_written(own)), shares)
    return Evaluation({metric: kind.score(metric, predictions) for metric in metrics}, predictions)


def _part(
    kind: TaskType, model: nn.Module, rows: pa.Table, share: Batches, pad: int, pad_left: bool
) -> Evaluation | None:
    """Nothing, where there are fewer batches than ranks."""
    return kind.evaluate(model, rows, share, pad, pad_left) if share else None


def _written(part: Evaluation | None) -> bytes:
    if part is None:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, part.predictions.schema) as writer:
        writer.write_table(part.predictions)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _in_order(payloads: Sequence[bytes], shares: Sequence[Batches]) -> pa.Table:
    """One table in the split's order; a part has the rows of its batches in theirs."""
    tables = [pa.ipc.open_stream(payload).read_all() for payload in payloads if payload]
    positions = np.concatenate([np.sort(np.concatenate(share)) for share in shares if share])
    return pa.concat_tables(tables).take(np.argsort(positions, kind="stable")).combine_chunks()
