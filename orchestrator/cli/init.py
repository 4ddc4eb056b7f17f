"""The ``init`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import app
from orchestrator.common.errors import InputError, Problem

FILE = "sweep.yaml"


@app.command()
def init(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Rows: a file, folder, pattern, URI, or package:NAME/SUBPATH."),
    ],
    model: Annotated[str, typer.Option(help="The backbone: a hub id, a folder, or package:NAME/SUBFOLDER.")] = "",
) -> None:
    """Write a commented sweep.yaml for a file of rows, from what its columns look like.

    Nothing is asked; what was assumed is printed and stands in the file. An existing file is never overwritten.
    """
    from orchestrator.cli.output.console import console, program
    from orchestrator.config.draft import draft

    if Path(FILE).exists():
        raise InputError(FILE, [Problem("", "is there already; move it away, or work in another folder")])
    written = draft(data, Path.cwd(), model)
    with Path(FILE).open("x", encoding="utf-8") as file:
        file.write(written.text)
    console.print(f"wrote {FILE}")
    for line in written.assumed:
        console.print(f"  {line}")
    console.print(f"next: {program()} plan {FILE}")
