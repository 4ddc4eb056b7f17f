"""``methods``: what can be trained, and where."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, app, print_json

Names = Annotated[
    list[str] | None,
    typer.Option("--method", help="Only this one; may be given again, also as compose:PART+PART.", metavar="NAME"),
]


@app.command()
def methods(
    backbone: Annotated[
        str, typer.Option(help="Hub id, folder, GGUF file or package:NAME/SUBFOLDER to try them on; no weights needed.")
    ] = "",
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8 or none.")] = "nf4",
    task: Annotated[str, typer.Option(help="Type of task, as in a configuration.")] = "classification",
    method: Names = None,
    as_json: AsJson = False,
) -> None:
    """List the fine-tuning methods; with --backbone, which of them work on it and what they would train."""
    from orchestrator.cli.output.methods import capabilities, method_row, print_methods

    found = capabilities(backbone, quantization, task, method or [])
    print_json([method_row(one) for one in found]) if as_json else print_methods(found, bool(backbone))
