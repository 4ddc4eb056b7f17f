"""``peft-sweep export``: the exported folder, and how to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.output.console import console, print_field
from orchestrator.common.units import size

if TYPE_CHECKING:
    from orchestrator.export import Exported


def print_exported(exported: Exported) -> None:
    """Print the exported folder, and how to load it."""
    folder, method = exported.folder, exported.method
    if merged := exported.merged:
        console.print(f"{folder}: {exported.backbone} with {method} merged, {merged.dtype}, {size(exported.bytes)}")
        difference = f"{merged.largest_difference:.1e}"
        print_field(
            "verified", f"results differ from the adapter's by at most {difference} ({merged.rows} random rows)"
        )
        print_field("load", f'{merged.auto_class}.from_pretrained("{folder}")')
        return
    console.print(f"{folder}: a {method} adapter for {exported.backbone}, {size(exported.bytes)}")
    if exported.peft:
        print_field("with peft", f'peft.PeftModel.from_pretrained(model, "{folder}")')
    print_field("load", f"the code in {folder}/README.md")
