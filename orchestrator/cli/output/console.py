"""The console of commands, and helpers for tables and aligned lines."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console(highlight=False, markup=False, soft_wrap=True)


def table(*columns: str) -> Table:
    """Return a table without rules and with a bold header.

    Args:
        columns: names of the columns; ``%`` and ``trials`` are aligned to the right.
    """
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        grid.add_column(column, justify="right" if column in ("%", "trials") else "left")
    return grid


def print_field(name: str, value: str) -> None:
    """Print an indented line with a name and a value; the values of all such lines are aligned."""
    console.print(f"  {name:<11}  {value}")


def program(name: str = "peft-sweep") -> str:
    """Return a program of this environment as the user can type it: its name, or its path outside ``PATH``."""
    if shutil.which(name):
        return name
    is_module = Path(sys.argv[0]).name == "__main__.py"  # beside that, there are no programs
    path = Path(sys.executable if is_module else sys.argv[0]).absolute().with_name(name)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
