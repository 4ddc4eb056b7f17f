"""The ``methods`` command."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, app, print_json

Names = Annotated[
    list[str] | None,
    typer.Option("--method", help="Only this method; repeatable. Also compose:PART+PART.", metavar="NAME"),
]


@app.command()
def methods(
    backbone: Annotated[
        str,
        typer.Option(
            help="Try the methods on this hub id, folder, GGUF file or package:NAME/FOLDER; needs no weights."
        ),
    ] = "",
    quantization: Annotated[str, typer.Option(help="Quantization of the backbone: nf4, fp4, int8 or none.")] = "nf4",
    task: Annotated[str, typer.Option(help="Type of task, as in a configuration.")] = "classification",
    method: Names = None,
    as_json: AsJson = False,
) -> None:
    """List the fine-tuning methods; with --backbone, show which work on it and how many parameters they train."""
    from orchestrator.cli.output.methods import capabilities, method_row, print_methods

    rows = capabilities(backbone, quantization, task, method or [])
    print_json([method_row(capability) for capability in rows]) if as_json else print_methods(rows, bool(backbone))
