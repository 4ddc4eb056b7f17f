"""``predict``: rows through a registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import DEFAULT_TRACKING, TrackingUri, app

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model: NAME@champion, NAME/3, or NAME.")]
Out = Annotated[Path | None, typer.Option(help="File to write, whole or not at all; standard output if left out.")]


@app.command()
def predict(model: Model, out: Out = None, tracking_uri: TrackingUri = DEFAULT_TRACKING) -> None:
    """Label texts or complete prompts: rows in, one JSON object a line, from standard input; answered rows out.

    A row is an object with the column that the model was trained on, {"text": "..."} or {"prompt": "..."}. It comes out
    with all its columns, in its place, and with label and probabilities, or completion. For example:
    peft-sweep predict airline@champion < rows.jsonl > answered.jsonl
    """
    from orchestrator.common.output_capture import no_library_noise

    with no_library_noise():
        from orchestrator.cli.output.predict import predict_rows

        predict_rows(model, out, tracking_uri)
