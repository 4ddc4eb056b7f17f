"""Where commands print to, and how their tables look."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console(highlight=False, markup=False, soft_wrap=True)


def table(*columns: str) -> Table:
    """A table without lines, under bold names."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in ("%", "trials") else "left")
    return made


def print_field(name: str, value: str) -> None:
    """Print an indented line with a name and a value; the values of all such lines are aligned."""
    console.print(f"  {name:<11}  {value}")


def program(name: str = "peft-sweep") -> str:
    """A program of this environment as it can be typed: its name, or its path where the shell would not find it."""
    if shutil.which(name):
        return name
    beside = Path(sys.argv[0]).absolute().with_name(name)
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
