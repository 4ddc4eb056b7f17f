"""``export``: a trained adapter for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import DEFAULT_TRACKING, AsJson, TrackingUri, app, print_json
from orchestrator.common.errors import InputError, Problem

What = Annotated[
    str,
    typer.Argument(metavar="TRIAL_OR_MODEL", help="SWEEP/TASK/METHOD/NUMBER, or a model: NAME@champion or NAME/3."),
]
Out = Annotated[Path | None, typer.Option(help="New folder to write; named after what is exported if left out.")]
Dtype = Annotated[
    str | None, typer.Option(help="With --merged: float32, bfloat16 or float16; the checkpoint's own if left out.")
]
Folder = Annotated[str, typer.Option(help="Where the sweeps are: storage in sweep.yaml.")]


@app.command()
def export(
    what: What,
    merged: Annotated[bool, typer.Option("--merged", help="Fold it into a plain transformers checkpoint.")] = False,
    out: Out = None,
    dtype: Dtype = None,
    storage: Folder = "sweeps",
    tracking_uri: TrackingUri = DEFAULT_TRACKING,
    as_json: AsJson = False,
) -> None:
    """Write a trained adapter, or with --merged the checkpoint that it makes of its backbone, into a folder."""
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise InputError("--dtype", [Problem(str(dtype), "is unknown; write float32, bfloat16 or float16")])
    if dtype and not merged:
        raise InputError("--dtype", [Problem(dtype, "is for --merged alone; an adapter is kept as it was trained")])
    from orchestrator.common.output_capture import no_library_noise

    with no_library_noise():
        from orchestrator.cli.output.export import print_exported
        from orchestrator.export import export as write

        made = write(what, merged=merged, out=out, dtype=dtype, storage=storage, tracking_uri=tracking_uri)
    print_json(made.to_dict()) if as_json else print_exported(made)
