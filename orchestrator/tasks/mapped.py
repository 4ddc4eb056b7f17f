"""Large split tables in files that the kernel maps, in place of this process's own memory."""

from __future__ import annotations

import logging
import tempfile

import pyarrow as pa

log = logging.getLogger(__name__)
LARGE_BYTES = 32_000_000
"""Tables of fewer bytes stay in memory."""


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
