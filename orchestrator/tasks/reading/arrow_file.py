"""Rows of parquet and Arrow files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.tasks.column_types import plain
from orchestrator.tasks.reading.source import ROWS, Batch, DataFile

_MAGIC = b"ARROW1"


class ParquetSource:
    """A parquet file."""

    def __init__(self, file: DataFile) -> None:
        import pyarrow.parquet as pq

        try:
            self._parquet = pq.ParquetFile(file.open_binary())
        except pa.ArrowInvalid as error:
            if "magic bytes" in str(error):
                raise ValueError("is not a parquet file, or cut off: its last bytes are not those of one") from error
            raise
        self.names = self._parquet.schema_arrow.names

    def batches(self, columns: Sequence[str], rows: int = ROWS) -> Iterator[Batch]:
        """Iterate over the rows; columns that nobody asked for are not read."""
        known = [name for name in columns if self.names.count(name) == 1]
        if not known:
            yield from arrow_batches(iter([self._empty(self._parquet.metadata.num_rows)]), known)
            return
        # One call keeps the bytes of all row groups that it has read.
        groups = range(self._parquet.num_row_groups)
        parts = (part for k in groups for part in self._parquet.iter_batches(rows, row_groups=[k], columns=known))
        yield from arrow_batches(parts, known)

    def _empty(self, rows: int) -> Any:
        return pa.table({"": pa.nulls(rows)})


class ArrowSource:
    """An Arrow file in either of its two formats, for files and for streams."""

    def __init__(self, file: DataFile) -> None:
        self._reader = open_arrow(file.open_binary())
        self.names = self._reader.schema.names

    def batches(self, columns: Sequence[str], rows: int = ROWS) -> Iterator[Batch]:
        """Iterate over the rows, in the batches of the file."""
        known = [name for name in columns if self.names.count(name) == 1]
        reader = self._reader
        is_stream = isinstance(reader, pa.ipc.RecordBatchStreamReader)
        parts = iter(reader) if is_stream else (reader.get_batch(i) for i in range(reader.num_record_batches))
        yield from arrow_batches(parts, known)


def open_arrow(file: Any) -> Any:
    """Return a reader of an Arrow file."""
    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid as error:
        file.seek(0)
        if file.read(len(_MAGIC)) == _MAGIC:
            raise ValueError("is an Arrow file that is cut off: its end is missing") from error
        file.seek(0)
        return pa.ipc.open_stream(file)


def arrow_batches(parts: Iterator[Any], columns: Sequence[str]) -> Iterator[Batch]:
    """Number the rows of record batches.

    Raises:
        ValueError: If a batch cannot be read, with the number of the row before it.
    """
    start = 1
    while True:
        try:
            part = next(parts, None)
        except (OSError, ValueError) as error:
            if start == 1:
                raise
            raise ValueError(f"after row {start - 1:,}: {error}") from error
        if part is None:
            return
        numbers = np.arange(start, start + part.num_rows, dtype=np.int64)
        names = _item_names(part.schema)
        yield Batch({name: _named(plain(part.column(name)), names.get(name)) for name in columns}, numbers)
        start += part.num_rows


def _item_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of numbered tags, by column, which the package datasets writes beside lists of them."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        items = {column: feature.get("feature") for column, feature in features.items()}
        return {column: item["names"] for column, item in items.items() if item and item.get("_type") == "ClassLabel"}
    except (TypeError, KeyError, AttributeError, ValueError):
        return {}


def _named(lists: pa.Array, names: list[str] | None) -> pa.Array:
    """Return lists with names in place of their numbers; a number without a name becomes null."""
    if names is None or not (pa.types.is_list(lists.type) and pa.types.is_integer(lists.type.value_type)):
        return lists
    numbers = lists.flatten()
    has_name = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, len(names)))
    texts = pa.array(names, pa.string()).take(pc.if_else(has_name, numbers, pa.scalar(None, numbers.type)))
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, texts, mask=lists.is_null())
