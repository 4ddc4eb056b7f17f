"""The command ``doctor``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import DEFAULT_TRACKING, AsJson, app, print_json

Config = Annotated[
    Path | None,
    typer.Argument(metavar="[SWEEP.yaml]", help="Check the storage and the MLflow that it names; else the defaults."),
]
Address = Annotated[str | None, typer.Option(help="Ray cluster to look at; without it, this machine.")]


@app.command()
def doctor(config: Config = None, address: Address = None, as_json: AsJson = False) -> None:
    """Check what a sweep needs: packages, GPUs, Ray, storage, MLflow, space, memory, encoding. Nothing is changed.

    Each check is one line, with what to do where something is wrong. The exit code is 1 if a sweep could not run.
    """
    from orchestrator.common.output_capture import no_library_noise
    from orchestrator.sweep.checks import Check, checks

    storage, tracking_uri = "sweeps", DEFAULT_TRACKING
    if config is not None:
        from orchestrator.config import load_config

        loaded = load_config(config)
        storage, tracking_uri = loaded.storage, loaded.mlflow.tracking_uri
    results: list[Check] = []
    with no_library_noise():
        for check in checks(storage, tracking_uri, address):
            results.append(check)
            if not as_json:
                mend = f"; {check.mend}" if check.mend else ""
                typer.echo(f"{check.result:<8} {check.name:<9} {check.detail}{mend}")
    if as_json:
        print_json([asdict(check) for check in results])
    if any(check.result == "fault" for check in results):
        raise typer.Exit(1)
