"""The command ``preview``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from orchestrator.cli.app import app
from orchestrator.cli.sweeps import ConfigFile, load
from orchestrator.common.errors import InputError, Problem

SHOWN_ROWS = 3
SPLITS = ("train", "validation", "test")


@app.command()
def preview(
    config: ConfigFile,
    task: Annotated[str | None, typer.Option(help="The task; the first one if left out.")] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test; all of them if left out.")] = None,
    row: Annotated[int | None, typer.Option(min=1, help="One row, by its number in the file.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="How many rows; 3 if left out, and all of them with --json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per row.")] = False,
) -> None:
    """Show what the model sees of a task's rows: tokens, which of them are trained, and what is cut.

    Reads the rows and the tokenizer, and no weights. Trained tokens are green, or in brackets where there is no
    terminal.
    """
    if split is not None and split not in SPLITS:
        raise InputError("--split", [Problem(split, f"is not a split; write {', '.join(SPLITS)}")])
    loaded = load(config)
    from orchestrator.common.output_capture import no_library_noise

    with no_library_noise():
        from orchestrator.planning.preview import Preview

        task_preview = Preview(loaded, task)
        count = rows if as_json or rows or row else SHOWN_ROWS
        shown = task_preview.rows((split,) if split else SPLITS, row, count)
    from orchestrator.cli.output.preview import print_preview, row_json

    if as_json:
        for each in shown:
            typer.echo(json.dumps(row_json(each), ensure_ascii=False))
        return
    with no_library_noise():
        summary = [task_preview.lengths(name) for name in ((split,) if split else SPLITS)]
    print_preview(task_preview, shown, summary)
