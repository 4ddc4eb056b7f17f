"""Tokenize splits into Ray's object store, batch by batch: small ones in this process, large ones by Ray tasks.

Token ids are Python objects for a moment, many times as large as the text. Batches bound how many: of a large split,
this process holds none, and each task those of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray

from orchestrator.tasks import TaskType
from orchestrator.tasks.cut_rows import text_characters

if TYPE_CHECKING:
    from ray import ObjectRef
    from transformers import PreTrainedTokenizerBase

BATCH_CHARACTERS = 4_000_000
"""Characters of a batch, but for a row that alone has more."""
LOCAL_BATCHES = 4
"""Batches of a split that this process tokenizes sooner than a worker of Ray has imported what it needs."""
TASKS_AT_ONCE = 4
SLIVER = 0.05
"""Of a core: lanes hold the rest, and wait for the tokens."""


def put_tokens(kind: TaskType, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> ObjectRef[Any]:
    """Return a reference to the tokenized table of a split; each of its columns is one chunk, which lanes do not copy.

    Args:
        kind: Type of the task.
        rows: The split.
        tokenizer: The checkpoint's tokenizer.
        max_length: Tokens of a row, at most.

    Raises:
        InputError: If a row cannot be tokenized.
    """
    batches = list(row_batches(rows, kind))
    if len(batches) <= LOCAL_BATCHES:
        return ray.put(joined(*(kind.tokenize(batch, tokenizer, max_length) for batch in batches)))
    settings = ray.put((kind, tokenizer, max_length))
    tokenize: Any = ray.remote(num_cpus=SLIVER, num_returns=2)(_tokenize)
    tokens: list[ObjectRef[Any]] = []
    waiting: list[ObjectRef[Any]] = []
    for batch in batches:
        if len(waiting) == TASKS_AT_ONCE:
            waiting = _without_finished(waiting)
        table, finished = tokenize.remote(settings, _to_bytes(batch))
        tokens.append(table)
        waiting.append(finished)
    while waiting:
        waiting = _without_finished(waiting)
    reference: ObjectRef[Any] = ray.remote(num_cpus=SLIVER)(joined).remote(*tokens)
    return reference


def row_batches(rows: pa.Table, kind: TaskType) -> Iterator[pa.Table]:
    """Yield the rows in batches of :data:`BATCH_CHARACTERS`; an empty table is one batch."""
    ends = np.cumsum(text_characters(rows, kind))
    start = 0
    while start < rows.num_rows:
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + BATCH_CHARACTERS, side="right")))
        yield rows.slice(start, stop - start)
        start = stop
    if not rows.num_rows:
        yield rows


def joined(*tables: pa.Table) -> pa.Table:
    """Return tables one after the other, each column in one chunk."""
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).combine_chunks()


def _tokenize(settings: tuple[TaskType, PreTrainedTokenizerBase, int], batch: bytes) -> tuple[pa.Table, bool]:
    """Return a batch's tokens, and beside them a value that tells the driver of errors without fetching the tokens."""
    kind, tokenizer, max_length = settings
    return kind.tokenize(pa.ipc.open_stream(batch).read_all(), tokenizer, max_length), True


def _without_finished(waiting: list[ObjectRef[Any]]) -> list[ObjectRef[Any]]:
    """Wait for one of some tasks, and return the others; raise its error, if it ended in one."""
    finished, others = ray.wait(waiting, num_returns=1)
    ray.get(finished)
    return others


def _to_bytes(batch: pa.Table) -> bytes:
    """Return a batch as a stream, without the rest of the table that it is a slice of."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_table(batch)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream
