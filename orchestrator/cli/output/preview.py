"""What ``peft-sweep preview`` prints: rows as the model sees them, and how long those of each split are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.cli.output.console import console, table

if TYPE_CHECKING:
    from orchestrator.planning.preview import Preview, PreviewRow, SplitLengths

OPEN, CLOSE = "\u27e6", "\u27e7"
"""What stands around trained tokens where there are no colours."""


def row_json(row: PreviewRow) -> dict[str, Any]:
    """Return a row as a JSON object."""
    tokens = [{"id": token.id, "text": token.text, "trained": token.trained} for token in row.tokens]
    values = {"row": row.row, "tokens": tokens, "length": len(tokens), "cut": row.cut, "trained": row.trained}
    return {**values, "label": row.label} if row.label else values


def print_preview(preview: Preview, rows: Sequence[PreviewRow], summary: Sequence[SplitLengths]) -> None:
    """Print rows, and the lengths of each split.

    Args:
        preview: The task's preview.
        rows: Rows to show.
        summary: Lengths of splits.
    """
    for row in rows:
        label = f"; label {row.label}" if row.label else ""
        cut = f"; {row.cut:,} tokens cut" if row.cut else ""
        console.print(
            f"{row.split} row {row.row:,}: {len(row.tokens):,} tokens, {row.trained:,} trained{cut}{label}",
            style="bold",
        )
        console.print(_row_text(row))
        console.print()
    grid = table("split", "rows", "tokens", "median", "trained", "too long", "tokens cut")
    for split in summary:
        grid.add_row(
            split.split,
            f"{split.rows:,}",
            f"{split.shortest:,} to {split.longest:,}",
            f"{split.median:,}",
            f"{split.trained:.0%}",
            f"{split.cut_rows:,}",
            f"{split.cut_tokens:,}",
        )
    console.print(grid)
    console.print(f"rows have at most {preview.max_length:,} tokens: training.max_length")


def _row_text(row: PreviewRow) -> Text:
    """Return a row's text, a line per role, with its trained tokens in green or in brackets."""
    text = Text()
    for place, (role, said) in enumerate(groupby(row.tokens, key=lambda token: token.role)):
        text.append("\n" if place else "")
        text.append(f"  {role:<10} " if role else "  ", style="dim")
        for trained, tokens in groupby(said, key=lambda token: token.trained):
            part = "".join(token.text for token in tokens).replace("\n", "\u21b5")
            if trained and not console.is_terminal:
                part = f"{OPEN}{part}{CLOSE}"
            text.append(part, style="green" if trained else "")
    return text
