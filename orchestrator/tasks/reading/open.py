"""A file's reader, by its format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.common.errors import InputError, Problem, first_line
from orchestrator.tasks.reading.hub import HubDataset, HubSource
from orchestrator.tasks.reading.source import DataFile, Source


def open_source(file: DataFile | HubDataset, encoding: str = "utf-8") -> Source:
    """Open a file.

    Args:
        file: The file; its format is known.
        encoding: Text encoding of a csv file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not of its format; pyarrow's errors are subclasses.
    """
    if isinstance(file, HubDataset):
        return HubSource(file)
    if file.format == "csv":
        from orchestrator.tasks.reading.csv_file import CsvSource

        return CsvSource(file, encoding)
    if file.format == "json":
        from orchestrator.tasks.reading.json_file import JsonSource

        return JsonSource(file)
    from orchestrator.tasks.reading.arrow_file import ArrowSource, ParquetSource

    return ParquetSource(file) if file.format == "parquet" else ArrowSource(file)


@contextmanager
def reading(file: DataFile | HubDataset, encoding: str) -> Iterator[None]:
    """Turn errors of reading a file into one line."""
    try:
        yield
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
        raise InputError(file.name, [Problem("", f"cannot be decoded as {encoding} ({reason})")]) from error
    except (OSError, EOFError, ValueError, NotImplementedError) as error:
        own = type(error) is ValueError  # what this project raises; pyarrow's errors are subclasses
        message = first_line(error) if own else f"cannot be read as {file.format}: {first_line(error)}"
        raise InputError(file.name, [Problem("", message)]) from error
