"""The ``export`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import DEFAULT_TRACKING, AsJson, StorageOption, TrackingUri, app, print_json
from orchestrator.common.errors import InputError, Problem

Reference = Annotated[
    str,
    typer.Argument(
        metavar="TRIAL_OR_MODEL",
        help="A trial, SWEEP/TASK/METHOD/NUMBER, or a registered model, NAME@champion or NAME/3.",
    ),
]
Out = Annotated[Path | None, typer.Option(help="New folder to write; named after the trial or model if left out.")]
Dtype = Annotated[
    str | None, typer.Option(help="With --merged: float32, bfloat16 or float16; that of the checkpoint if left out.")
]


@app.command()
def export(
    reference: Reference,
    merged: Annotated[bool, typer.Option("--merged", help="Merge it into a plain transformers checkpoint.")] = False,
    out: Out = None,
    dtype: Dtype = None,
    storage: StorageOption = "sweeps",
    tracking_uri: TrackingUri = DEFAULT_TRACKING,
    as_json: AsJson = False,
) -> None:
    """Write a trained adapter to a folder; with --merged, write a transformers checkpoint that contains it."""
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise InputError("--dtype", [Problem(str(dtype), "is unknown; write float32, bfloat16 or float16")])
    if dtype and not merged:
        raise InputError("--dtype", [Problem(dtype, "needs --merged; an adapter keeps the dtype of its training")])
    from orchestrator.common.output_capture import no_library_noise

    with no_library_noise():
        from orchestrator.cli.output.export import print_exported
        from orchestrator.export import export as write

        exported = write(reference, merged=merged, out=out, dtype=dtype, storage=storage, tracking_uri=tracking_uri)
    print_json(exported.to_dict()) if as_json else print_exported(exported)
