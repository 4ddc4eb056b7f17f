"""``report``: what a sweep found, as one page to read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, app, print_json

Sweep = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name, as in sweeps/, or its folder.")]
Out = Annotated[Path | None, typer.Option(help="File to write; report.html in the sweep's folder if left out.")]
Folder = Annotated[str, typer.Option(help="Where the sweeps are: storage in sweep.yaml.")]
Uri = Annotated[str, typer.Option(help="MLflow to log it to; the sweep's own if left out.")]


@app.command()
def report(
    sweep: Sweep,
    out: Out = None,
    mlflow: Annotated[bool, typer.Option(help="Also log it to MLflow, on the sweep's runs.")] = True,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    storage: Folder = "sweeps",
    tracking_uri: Uri = "",
    as_json: AsJson = False,
) -> None:
    """Write what a sweep found as one HTML file, which needs no network: the recommendation first, then the evidence.

    It is made from the sweep's journal, so that it also tells of a sweep that runs, was interrupted, or failed.
    Every sweep writes one at its end.
    """
    from orchestrator.cli.output.report import print_report, report_sweep

    report = report_sweep(sweep, out, storage=storage, tracking_uri=tracking_uri, mlflow=mlflow)
    print_json(report.to_dict()) if as_json else print_report(report)
    if open_:
        typer.launch(report.file.as_uri())
