"""Large split tables in files that the kernel maps, in place of this process's own memory."""

from __future__ import annotations

import logging
import tempfile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

log = logging.getLogger(__name__)
LARGE_BYTES = 32_000_000
"""Tables of fewer bytes stay in memory."""
PART_BYTES = 64_000_000
"""About the most bytes of a table that are in memory at once while it is read, divided or filtered."""


def mapped_rows(table: pa.Table, indices: NDArray[np.int64]) -> pa.Table:
    """Return rows of a table as :func:`mapped` does, part by part, so that a copy of all is never in memory.

    Args:
        table: the table.
        indices: indices of the rows, which ascend.
    """
    rows = max(1, int(PART_BYTES * table.num_rows // max(1, table.nbytes)))
    joined = Joined()
    for start in range(0, max(1, table.num_rows), rows):
        first, end = np.searchsorted(indices, [start, start + rows])
        joined.add(table.slice(start, rows).take(pa.array(indices[first:end] - start)))
    return joined.table()


class Joined:
    """A table that comes in parts; what is large of it is mapped as it comes."""

    def __init__(self) -> None:
        self._mapped: list[pa.Table] = []
        self._small: list[pa.Table] = []

    def add(self, part: pa.Table) -> None:
        """Add the next rows."""
        self._small.append(part)
        if sum(table.nbytes for table in self._small) >= LARGE_BYTES:
            self._map()

    def table(self) -> pa.Table:
        """Return all rows."""
        if self._small:
            self._map()
        return self._mapped[0] if len(self._mapped) == 1 else pa.concat_tables(self._mapped)

    def _map(self) -> None:
        self._mapped.append(mapped(self._small[0] if len(self._small) == 1 else pa.concat_tables(self._small)))
        self._small = []


def mapped(table: pa.Table) -> pa.Table:
    """Return an equal table; the values of a large one lie in a file in the folder of temporary files.

    The kernel takes the pages of such a file back where memory is short, and reads them again when they are needed.
    The file has no name any more when this function returns, so that it goes with the table, and with the process
    however that ends. A table that cannot be written stays in memory.
    """
    if table.nbytes < LARGE_BYTES:
        return table
    if any(column.num_chunks > 1 for column in table.columns):
        table = table.combine_chunks()  # columns of one chunk are read without copies
    try:
        with tempfile.NamedTemporaryFile(prefix="peft-sweep-", suffix=".arrow") as file:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            file.flush()
            copy = pa.ipc.open_file(pa.memory_map(file.name)).read_all()
    except OSError as error:
        log.warning("%d MB of rows stay in memory: %s", table.nbytes // 1_000_000, error)
        return table
    return copy
