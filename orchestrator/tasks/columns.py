"""Columns as a task type reads them, with a mark on every row whose value cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.column_readings import Refusals, to_json_lists, to_numbers, to_objects, to_text_lists, to_texts
from orchestrator.tasks.column_types import Mask, any_of, flags, kind_of, plain, to_array

T = TypeVar("T")
STRIPPED_ROWS = 1024
"""Texts that are copied at once to see whether they are blank."""


class Column:
    """One column of a file.

    ``contents`` of a task type takes the reading that it needs; each is made when it is first asked for, and has one
    entry per row::

        columns[self.text].texts         # pa.Array of string; numbers, booleans and dates as they are written
        columns[self.target].numbers     # pa.Array of float64
        columns[self.tags].text_lists    # pa.Array of list<string>: tokens, tags, labels, choices
        columns[self.target].alternatives  # pa.Array of list<string>, where the file holds lists of right texts
        columns[self.messages].values    # list of Python objects: messages, spans, anything nested

    A reading refuses the rows that it cannot be made of: a text that is empty or not UTF-8, a number that is none, NaN
    or infinite, a list with a null, JSON that is cut. A type refuses rows for its own reasons by :meth:`map`, with a
    function that raises ``ValueError``, or by :meth:`refuse`. Entries of refused rows may be null or ``None``, and
    what ``contents`` returns for them is not used: the rows are reported, with file, row and column, or dropped where
    ``drop_invalid`` is set.

    Nested values may stand in parquet, arrow, json and jsonl as such, and in any file as JSON (or as Python writes
    them) in a text. Objects have no keys whose value is null where the file's format cannot tell both apart.

    Args:
        name: Name of the column.
        values: Its values as the file stores them, one per row.
        optional: Whether a row may have no value, and a file may lack the column: those the section's
            ``optional_columns`` names. Texts are then empty, numbers and lists null, values ``None``.
        file: Name of the file, for errors.
        strip: Whether white space at both ends of texts is removed.
    """

    def __init__(
        self,
        name: str,
        values: pa.Array | pa.ChunkedArray,
        optional: bool = False,
        file: str = "",
        strip: bool = False,
    ) -> None:
        self.name, self.optional, self.file, self.strip = name, optional, file, strip
        self.refusals: Refusals = []
        self._values = plain(values)

    @classmethod
    def of(cls, name: str, values: list[Any]) -> Self:
        """Return a column of Python objects."""
        return cls(name, to_array(values))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._values)

    @cached_property
    def texts(self) -> pa.Array:
        """Texts (string).

        Raises:
            InputError: If the column holds lists or objects.
        """
        texts: pa.Array = self._read(to_texts)
        if self.strip:
            texts = pc.utf8_trim_whitespace(texts)
        self._refuse_empty(_is_blank(texts))
        return pc.fill_null(texts, "") if self.optional else texts

    @cached_property
    def numbers(self) -> pa.Array:
        """Numbers (float64), all finite.

        Raises:
            InputError: If the column holds neither numbers nor texts.
        """
        numbers: pa.Array = self._read(to_numbers)
        self._refuse_empty(flags(numbers.is_null(), null=True))
        return numbers

    @cached_property
    def text_lists(self) -> pa.Array:
        """Lists of texts (list<string>); a list may be empty.

        Raises:
            InputError: If the column holds neither lists nor texts.
        """
        lists: pa.Array = self._read(to_text_lists)
        self._refuse_empty(flags(lists.is_null(), null=True))
        if self.strip:
            stripped = pc.utf8_trim_whitespace(lists.values)
            lists = pa.ListArray.from_arrays(lists.offsets, stripped, mask=lists.is_null())
        return lists

    @cached_property
    def alternatives(self) -> pa.Array | None:
        """Lists of texts of which each is right (list<string>), where the file holds lists; ``None`` where it does not.

        In json and jsonl a row may have a text in place of a list of one.
        """
        lists_of_json = to_json_lists(self._values)
        if lists_of_json is None and kind_of(self._values.type) != "list":
            return None
        self._values = self._values if lists_of_json is None else lists_of_json
        lists = self.text_lists
        nothing = [
            texts is not None and not all(text and text.strip() for text in texts or [""])
            for texts in lists.to_pylist()
        ]
        if (is_empty := np.array(nothing, bool) & ~self.refused).any():
            self.refuse(is_empty, "is an empty list or holds an empty text")
        return lists

    @cached_property
    def values(self) -> list[Any]:
        """Python objects: lists, dictionaries, texts, numbers, booleans; ``None`` where there is none."""
        values: list[Any] = self._read(to_objects)
        blank = [value is None or (isinstance(value, str) and not value.strip()) for value in values]
        self._refuse_empty(np.array(blank, bool))
        return values

    def map(self, function: Callable[[Any], T]) -> list[T | None]:
        """Return a function of each of :attr:`values`, and ``None`` for refused rows and missing values.

        Args:
            function: Takes a value; a ``ValueError`` refuses the row with its message, which continues "row 3, column
                messages:".
        """
        results: list[T | None] = []
        values = self.values
        is_refused = self.refused
        for index, value in enumerate(values):
            try:
                results.append(None if value is None or is_refused[index] else function(value))
            except ValueError as error:
                results.append(None)
                self.refuse(index, str(error))
        return results

    def refuse(self, rows: int | Mask, message: str) -> None:
        """Refuse a row by its index, or the rows of a mask.

        Args:
            rows: Index from 0 on, or a mask with one entry per row.
            message: What is wrong, as it continues "row 3, column tags:".
        """
        mask = np.zeros(len(self), bool)
        mask[rows] = True
        self.refusals.append((mask, message))

    @property
    def refused(self) -> Mask:
        """The rows that cannot be used, as far as they were read."""
        return any_of([mask for mask, _ in self.refusals], len(self))

    def _read(self, reading: Callable[[pa.Array], tuple[Any, Refusals]]) -> Any:
        try:
            values, refusals = reading(self._values)
        except ValueError as error:
            raise InputError(self.file, [Problem(f"column {self.name}", str(error))]) from None
        self.refusals += refusals
        return values

    def _refuse_empty(self, is_empty: Mask) -> None:
        is_empty &= ~self.refused
        if is_empty.any() and not self.optional:
            self.refuse(is_empty, "is empty")


def _is_blank(texts: pa.Array) -> Mask:
    """Return which texts are null or nothing but white space."""
    parts = [texts.slice(start, STRIPPED_ROWS) for start in range(0, len(texts), STRIPPED_ROWS)]
    blank = [flags(pc.equal(pc.utf8_trim_whitespace(part), ""), null=True) for part in parts]
    return np.concatenate([np.zeros(0, bool), *blank])


def ordered(labels: pa.ChunkedArray) -> tuple[str, ...]:
    """Return the distinct labels: numbers by size, texts by alphabet."""
    distinct = pc.unique(labels).to_pylist()
    try:
        return tuple(sorted(distinct, key=int))
    except ValueError:
        return tuple(sorted(distinct))
