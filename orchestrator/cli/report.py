"""The ``report`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, StorageOption, SweepArgument, app, print_json

Out = Annotated[Path | None, typer.Option(help="File to write; report.html in the sweep's folder if left out.")]
Uri = Annotated[str, typer.Option(help="MLflow to log it to; that of the sweep if left out.")]


@app.command()
def report(
    sweep: SweepArgument,
    out: Out = None,
    mlflow: Annotated[bool, typer.Option(help="Also log it to the sweep's runs in MLflow.")] = True,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    storage: StorageOption = "sweeps",
    tracking_uri: Uri = "",
    as_json: AsJson = False,
) -> None:
    """Write the report of a sweep as one HTML file that needs no network: the recommendation, then the evidence.

    The report is made from the sweep's journal, so it also works for a sweep that is running, was stopped or failed.
    Every sweep writes its report when it ends.
    """
    from orchestrator.cli.output.report import print_report, report_sweep

    report = report_sweep(sweep, out, storage=storage, tracking_uri=tracking_uri, mlflow=mlflow)
    print_json(report.to_dict()) if as_json else print_report(report)
    if open_:
        typer.launch(report.file.as_uri())
