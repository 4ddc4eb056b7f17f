"""``methods``: what can be trained, and where."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, app, print_json


@app.command()
def methods(
    backbone: Annotated[str, typer.Option(help="Hub id, folder, or package:NAME/SUBFOLDER to try them on.")] = "",
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8 or none.")] = "nf4",
    task: Annotated[str, typer.Option(help="classification or causal-lm.")] = "classification",
    as_json: AsJson = False,
) -> None:
    """List the fine-tuning methods; with --backbone, which of them work on it and what they would train."""
    from orchestrator.views.plan import method_rows, print_methods

    rows = method_rows(backbone, quantization, task)
    print_json(rows) if as_json else print_methods(rows, bool(backbone))
