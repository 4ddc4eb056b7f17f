"""What the display shows of the final: retrainings and scorings by method."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from orchestrator.final.progress import FinalStatus, MethodProgress

Label = Callable[[str], str]
"""Function that returns how a study is shown."""


def final_line(status: FinalStatus, label: Label) -> str:
    """Return the progress of all methods in a line: ``lora 2 of 3 retrained, 0 of 1 scored; ia3 1 of 1 scored``."""
    return "; ".join(f"{label(study)} {_counts(method)}" for study, method in status.methods.items())


def final_table(status: FinalStatus, label: Label) -> Table:
    """Return a table with a row per method."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="")
    table.add_column("  method")
    for column in ("retrained", "scored only"):
        table.add_column(column, justify="right")
    for study, method in status.methods.items():
        cells = (_share(method.retrained, method.retrainings), _share(method.scored, method.scorings))
        table.add_row(f"  {label(study)}", *(cell or "-" for cell in cells))
    return table


def _counts(method: MethodProgress) -> str:
    counts = {
        "retrained": _share(method.retrained, method.retrainings),
        "scored": _share(method.scored, method.scorings),
    }
    return ", ".join(f"{share} {name}" for name, share in counts.items() if share)


def _share(done: int, of: int) -> str:
    return f"{done} of {of}" if of else ""
