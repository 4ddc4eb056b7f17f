"""Where commands print to, and how their tables look."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

console = Console(highlight=False, markup=False, soft_wrap=True)


def table(*columns: str) -> Table:
    """A table without lines, under bold names."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in ("%", "trials") else "left")
    return made
