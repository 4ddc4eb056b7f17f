"""``peft-sweep export``: what was written, and how to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.output.console import console
from orchestrator.common.units import size

if TYPE_CHECKING:
    from orchestrator.export import Exported


def print_exported(made: Exported) -> None:
    """What it is, and what to type next."""
    if merged := made.merged:
        console.print(
            f"{made.folder}: {made.backbone} with {made.method} merged into it, {merged.dtype}, {size(made.bytes)}\n"
            f"  proof    logits differ from the adapter's by {merged.largest_difference:.1e} at most"
            f" ({merged.rows} rows of random tokens)\n"
            f'  use      {merged.auto_class}.from_pretrained("{made.folder}")'
        )
        return
    console.print(f"{made.folder}: a {made.method} adapter for {made.backbone}, {size(made.bytes)}")
    if made.peft:
        console.print(f'  use      peft.PeftModel.from_pretrained(model, "{made.folder}")')
    console.print(f"  load     the lines in {made.folder}/README.md")
