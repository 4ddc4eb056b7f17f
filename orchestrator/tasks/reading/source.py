"""What a reader of a format gives: the names of the columns, and batches of rows."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""Formats by suffix."""
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""Compressions by suffix."""
ROWS = 8192
"""Rows of a batch."""
_MAGIC = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "zstd": b"\x28\xb5\x2f\xfd"}
_FOREIGN = {
    b"version https://git-lfs": "is a Git LFS pointer and not the file itself; git lfs pull fetches it",
    b"PK\x03\x04": "is a zip archive or an Excel file; save it as csv, or unpack it",
    b"PAR1": "is a parquet file; give it the suffix .parquet",
    b"ARROW1": "is an Arrow file; give it the suffix .arrow",
    b"<!doctype html": "is a web page and not the file itself; download it again",
    b"<html": "is a web page and not the file itself; download it again",
}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Batch:
    """Some rows of a file.

    Args:
        columns: Values by column, one per row.
        numbers: Number of each row in the file, from 1 on.
        broken: Pairs of number and message of the rows that cannot be parsed.
    """

    columns: dict[str, pa.Array]
    numbers: NDArray[np.int64]
    broken: list[tuple[int, str]] = field(default_factory=list)


class Source(Protocol):
    """An open file."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the columns; those of JSON are known after its rows were read, as far as they were."""

    def batches(self, columns: Sequence[str], rows: int = ROWS) -> Iterator[Batch]:
        """Iterate over the rows, with those of the columns that the file has.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If the rest of the file is not of its format; pyarrow's errors are subclasses.
        """


@dataclass(frozen=True)
class DataFile:
    """One file.

    Args:
        filesystem: Filesystem of pyarrow.
        path: Path in the filesystem.
    """

    filesystem: Any
    path: str

    @property
    def name(self) -> str:
        """The file's name, as messages give it."""
        return PurePosixPath(self.path).name

    @property
    def format(self) -> str:
        """The format by the suffix; empty if it is none."""
        return split_suffix(self.name)[0]

    def open_binary(self) -> Any:
        """Open the file to read at any position; compressed ones are held in memory."""
        codec = split_suffix(self.name)[1]
        if not codec:
            return self.filesystem.open_input_file(self.path)
        with self.open_stream() as stream:
            return pa.BufferReader(stream.read())

    def open_stream(self) -> io.BufferedReader:
        """Open the file's bytes, decompressed by what the file begins with.

        Raises:
            ValueError: If it is no file of rows, or not compressed as its suffix says.
        """
        stream = io.BufferedReader(self.filesystem.open_input_stream(self.path, compression=None), 1 << 16)
        _, expected = split_suffix(self.name)
        head = stream.peek(4)
        codec = next((codec for codec, magic in _MAGIC.items() if head.startswith(magic)), "")
        if expected and codec != expected:
            raise ValueError("is empty" if not head else f"is not compressed by {expected}")
        if codec:
            stream = io.BufferedReader(pa.CompressedInputStream(stream, codec), 1 << 16)
        head = stream.peek(32)[:32].lower()
        if self.format not in ("parquet", "arrow"):
            for magic, message in _FOREIGN.items():
                if head.startswith(magic.lower()):
                    raise ValueError(message)
        return stream

    def open_text(self, encoding: str, newline: str | None) -> io.TextIOWrapper:
        """Open the file's text; a byte order mark overrides the encoding.

        Bytes that the encoding lacks become surrogates, so that the value that has them can be told.
        """
        stream = self.open_stream()
        # a decoder of several bytes a character cannot go on after a byte that it does not know
        mark = next((name for mark, name in _MARKS.items() if stream.peek(4).startswith(mark)), "")
        encoding = mark or encoding
        is_wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
        return io.TextIOWrapper(stream, encoding, "strict" if is_wide else "surrogateescape", newline)


def split_suffix(name: str) -> tuple[str, str]:
    """Return a file's format and its compression by its suffixes in any case, each empty if there is none."""
    path = PurePosixPath(name.lower())
    codec = COMPRESSIONS.get(path.suffix, "")
    return FORMATS.get((path.with_suffix("") if codec else path).suffix, ""), codec
