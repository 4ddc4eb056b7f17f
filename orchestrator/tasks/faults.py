"""Rows that cannot be used: collected, shown ten at a time, or dropped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.column_types import Mask

MAX_SHOWN = 10
ALIKE = 4
"""Rows at which faults in all of them are no coincidence."""


class DataName(str):
    """What messages call a split's data: the name of its file, or of the folder or pattern with its files.

    A text, so that messages can be made of it; where there are several files it knows which one a row is in.
    """

    starts: tuple[tuple[int, str], ...] = ()

    def __new__(cls, name: str, starts: Sequence[tuple[int, str]] = ()) -> Self:
        """Return the name of data.

        Args:
            name: Name of the file, folder or pattern.
            starts: Number of the first row and name of each file, where there are several.
        """
        self = super().__new__(cls, name)
        self.starts = tuple(starts)
        return self

    def place(self, row: int) -> str:
        """Return where a row is: its number in its file, with the file's name where there are several."""
        start, file = next((entry for entry in reversed(self.starts) if entry[0] <= row), (1, ""))
        return f"{file} row {row - start + 1:,}".lstrip()


def _place(name: DataName, row: int, column: str) -> str:
    return f"{name.place(row)}, column {column}" if column else name.place(row)


@dataclass
class Faults:
    """The rows of one file that cannot be used, and why.

    Args:
        file: Name of the file.
        row_numbers: Numbers of the rows in the file.
        entries: Row number, column (empty for the whole row) and message of each fault.
    """

    file: str
    row_numbers: NDArray[np.int64]
    entries: list[tuple[int, str, str]] = field(default_factory=list)

    def mark(self, mask: Mask, column: str, message: str) -> None:
        """Record a fault in a column for every row of the mask."""
        self.entries += [(int(number), column, message) for number in self.row_numbers[mask]]

    @property
    def usable(self) -> Mask:
        """The rows without a fault."""
        mask: Mask = ~np.isin(self.row_numbers, [row for row, _, _ in self.entries])
        return mask

    def count(self) -> int:
        """Return how many rows have a fault."""
        return len({row for row, _, _ in self.entries})

    def raise_if_any(self, key: str) -> None:
        """Raise an error if there is a fault.

        Args:
            key: Key path of the task, for the hint.

        Raises:
            InputError: With the first ten faults.
        """
        if self.entries:
            hint = f"drop them with {key}.drop_invalid: true" if self.usable.any() else ""
            raise InputError(self.file, self.problems(), hint)

    def problems(self) -> list[Problem]:
        """Return the first ten faults, in the file's order, and how many more rows have one.

        Where every row of several has one, they are most likely the same mistake: the first row stands for all.
        """
        faults, name = sorted(set(self.entries)), self.file if isinstance(self.file, DataName) else DataName(self.file)
        if len(self.row_numbers) >= ALIKE and not self.usable.any():
            first = [
                f"{_place(name, row, column)}: {message}" for row, column, message in faults if row == faults[0][0]
            ]
            return [Problem("", f"no row can be used; {text}") for text in first]
        shown = [Problem(_place(name, row, column), message) for row, column, message in faults[:MAX_SHOWN]]
        more = len({row for row, _, _ in faults} - {row for row, _, _ in faults[:MAX_SHOWN]})
        return [*shown, Problem("", f"{more:,} more rows cannot be used")] if more else shown
