"""The ``predict`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import DEFAULT_TRACKING, TrackingUri, app

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model: NAME@champion, NAME/3, or NAME.")]
Out = Annotated[Path | None, typer.Option(help="File to write once all rows are done; standard output if left out.")]


@app.command()
def predict(model: Model, out: Out = None, tracking_uri: TrackingUri = DEFAULT_TRACKING) -> None:
    """Label texts or complete prompts with a registered model: JSON lines in from standard input, JSON lines out.

    Each row is an object with the columns that the model was trained on, such as {"text": "..."} or {"prompt": "..."};
    optional ones may be left out. It is written in the same order with all its columns, and with label and
    probabilities, or with completion.

    Example: peft-sweep predict airline@champion < rows.jsonl > labelled.jsonl
    """
    from orchestrator.common.output_capture import no_library_noise

    with no_library_noise():
        from orchestrator.cli.output.predict import predict_rows

        predict_rows(model, out, tracking_uri)
