"""Rows of a csv file, by the standard library: its delimiter is found, and values stay as they are written."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from orchestrator.tasks.column_types import to_array
from orchestrator.tasks.reading.source import ROWS, Batch, DataFile

DELIMITERS = ",;\t|"
SAMPLE_CHARACTERS = 1 << 16

Quoting = Literal[0, 3]
"""``csv.QUOTE_MINIMAL`` or ``csv.QUOTE_NONE``."""


class CsvSource:
    """A csv file with a header."""

    def __init__(self, file: DataFile, encoding: str) -> None:
        csv.field_size_limit(sys.maxsize)
        self._file, self._encoding = file, encoding
        with file.open_text(encoding, newline="") as text:
            sample = text.read(SAMPLE_CHARACTERS)
        if not sample.strip():
            raise ValueError("is empty")
        self._delimiter = _delimiter(sample, "\t" if ".tsv" in file.name.lower() else ",")
        self._quoting: Quoting = csv.QUOTE_MINIMAL
        header = next(self._rows())[1]
        if isinstance(header, str):
            raise ValueError(f"has a header that {header}")
        self.names = header

    def batches(self, columns: Sequence[str], rows: int = ROWS) -> Iterator[Batch]:
        """Iterate over the rows.

        Text between tabs is often written without quotes. So a file whose quotes do not close is read again without
        them, and taken so if all of its rows then have the fields of the header.

        Raises:
            ValueError: If a quote is never closed.
        """
        if self._delimiter == "\t" and self._quoting == csv.QUOTE_MINIMAL and self._is_unquoted():
            self._quoting = csv.QUOTE_NONE
        indices = {name: self.names.index(name) for name in columns if name in self.names}
        parsed = itertools.islice(self._rows(), 1, None)
        while part := list(itertools.islice(parsed, rows)):
            good = [(number, row) for number, row in part if not isinstance(row, str)]
            values = {name: to_array([row[index] for _, row in good]) for name, index in indices.items()}
            broken = [(number, row) for number, row in part if isinstance(row, str)]
            yield Batch(values, np.array([number for number, _ in good], np.int64), broken)

    def _is_unquoted(self) -> bool:
        try:
            if not any(isinstance(row, str) for _, row in self._rows()):
                return False
        except ValueError:
            pass
        return not any(isinstance(row, str) for _, row in self._rows(csv.QUOTE_NONE))

    def _rows(self, quoting: Quoting | None = None) -> Iterator[tuple[int, list[str] | str]]:
        """Iterate over number and fields of each row, the header first as number 0; a message where it is broken."""
        quoting = self._quoting if quoting is None else quoting
        with self._file.open_text(self._encoding, newline="") as text:
            reader = csv.reader(text, delimiter=self._delimiter, quoting=quoting, strict=True)
            number, width = 0, 0
            while True:
                line = reader.line_num
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if "unexpected end of data" in str(error):
                        lines = reader.line_num - line
                        message = f"row {number:,}: a quote is opened and never closed, in {lines:,} lines to the end"
                        raise ValueError(message) from None
                    yield number, f"is not csv ({error})"
                    number += 1
                    continue
                if not row or (len(row) == 1 and width > 1 and not row[0].strip()):
                    continue  # an empty line
                if number == 0:
                    row, width = [name.strip() for name in row], len(row)
                if len(row) != width:
                    fields = f"{len(row):,} field{'s' * (len(row) != 1)}"
                    yield number, f"has {fields} where the header has {width:,}"
                else:
                    yield number, row
                number += 1


def _delimiter(sample: str, default: str) -> str:
    """Return the delimiter: the one that is in the header, or what the sniffer says where several are."""
    header = next(line for line in sample.splitlines() if line.strip())
    candidates = [delimiter for delimiter in DELIMITERS if delimiter in header]
    if len(candidates) < 2:
        return candidates[0] if candidates else default
    try:
        found = csv.Sniffer().sniff(sample, "".join(candidates)).delimiter
    except csv.Error:
        return default if default in candidates else candidates[0]
    return found if found in candidates else default
