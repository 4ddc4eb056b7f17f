"""Rows that cannot be used: collected, shown ten at a time, or dropped and counted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.columns import Mask

SHOWN = 10


@dataclass
class Faults:
    """What is wrong with the rows of one file.

    Args:
        file: its name.
        numbers: the rows' numbers in the file.
        found: what was found so far: row number, column (empty for the whole row), message.
    """

    file: str
    numbers: NDArray[np.int64]
    found: list[tuple[int, str, str]] = field(default_factory=list)

    def mark(self, where: Mask, column: str, message: str) -> None:
        """Note that the rows of a mask have something wrong in a column."""
        self.found += [(int(number), column, message) for number in self.numbers[where]]

    @property
    def usable(self) -> Mask:
        """Rows without a fault."""
        mask: Mask = ~np.isin(self.numbers, [row for row, _, _ in self.found])
        return mask

    def count(self) -> int:
        """How many rows have a fault."""
        return len({row for row, _, _ in self.found})

    def refuse(self, key: str) -> None:
        """Stop where anything was found.

        Args:
            key: key path of the task, for the hint.

        Raises:
            InputError: with the first ten rows.
        """
        if self.found:
            raise InputError(self.file, self.problems(), f"drop them with {key}.drop_invalid: true")

    def problems(self) -> list[Problem]:
        """The first ten, in the file's order, and how many more rows there are."""
        ordered = sorted(set(self.found))
        shown = [
            Problem(f"row {row:,}, column {column}" if column else f"row {row:,}", message)
            for row, column, message in ordered[:SHOWN]
        ]
        more = len({row for row, _, _ in ordered} - {row for row, _, _ in ordered[:SHOWN]})
        return [*shown, Problem("", f"{more:,} more rows cannot be used")] if more else shown
