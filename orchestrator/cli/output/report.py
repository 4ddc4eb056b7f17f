"""``peft-sweep report``: writes the page, logs it, and prints where it is."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.cli.output.console import console, print_field, program
from orchestrator.cli.output.next_commands import recorded_reference
from orchestrator.common.errors import InputError, Problem, SweepError
from orchestrator.common.units import size
from orchestrator.common.uris import mask_secrets
from orchestrator.journal.folders import JOURNAL, find_sweep
from orchestrator.journal.validity import blaming_journal
from orchestrator.report.history import History
from orchestrator.report.write import read_history, write_report
from orchestrator.selection.selection import Selection

NOT_REQUESTED = "it was not requested"


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """A report that was written.

    Args:
        history: history of the sweep.
        file: path of the page.
        folder: folder of the sweep.
        tracking_uri: MLflow's tracking URI.
        runs: runs that it was logged to, by task.
        unlogged: why it was not logged.
    """

    history: History
    file: Path
    folder: Path
    tracking_uri: str
    runs: dict[str, str] = field(default_factory=dict)
    unlogged: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "sweep": self.history.name,
            "report": str(self.file),
            "bytes": self.file.stat().st_size,
            "ended": self.history.reason,
            "recommended": {task: selection.recommended for task, selection in self.history.selections.items()},
            "mlflow_runs": self.runs,
            "not_logged": self.unlogged or None,
        }


def report_sweep(sweep: str, out: Path | None, *, storage: str, tracking_uri: str, mlflow: bool) -> WrittenReport:
    """Write the report of a sweep and log it.

    Args:
        sweep: name or folder of the sweep.
        out: path of the page; ``report.html`` in the sweep's folder if left out.
        storage: storage of the sweeps.
        tracking_uri: MLflow's tracking URI; that of the sweep if left out.
        mlflow: whether to log it; an MLflow that cannot be reached is no error.

    Raises:
        InputError: if there is no such sweep, or the file cannot be written.
        SweepError: if the journal is damaged.
    """
    if out is not None and out.is_dir():
        raise InputError("--out", [Problem(str(out), f"is a folder; write {out / 'report.html'}")])
    folder = find_sweep(sweep, storage)
    with blaming_journal(folder / JOURNAL):
        history = read_history(folder)
        file = write_report(folder, out).absolute()
    uri = tracking_uri or str(history.config.get("mlflow", {}).get("tracking_uri") or "")
    runs, unlogged = _logged(history, file, uri) if mlflow and uri else ({}, NOT_REQUESTED)
    return WrittenReport(history=history, file=file, folder=folder, tracking_uri=uri, runs=runs, unlogged=unlogged)


def _logged(history: History, file: Path, uri: str) -> tuple[dict[str, str], str]:
    from orchestrator.report.publish import publish

    logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs a line for every table of a database
    try:
        runs = publish(history, file, tracking_uri=uri, timeout=2.0)
    except SweepError as error:
        return {}, str(error)
    return runs, "" if runs else f"{mask_secrets(uri)} has no run of this sweep"


def print_report(report: WrittenReport) -> None:
    """Print the recommendations, where the report is, and the next command."""
    history = report.history
    for task, selection in history.selections.items():
        console.print(f"{task}  {_recommendation(selection)}")
    if not history.selections:
        console.print(f"{history.name} has no result ({history.reason}); the report shows what was recorded")
    print_field("report", f"{report.file} ({size(report.file.stat().st_size)})")
    if report.runs:
        print_field("logged", f"to {len(report.runs)} MLflow run{'s' if len(report.runs) > 1 else ''} of the sweep")
    elif report.unlogged != NOT_REQUESTED:
        print_field("not logged", f"to MLflow: {report.unlogged}")
    if history.selections:
        reference = recorded_reference(report.folder, history.config)
        print_field("select", f"{program()} select {reference} --max-size 1MB")


def _recommendation(selection: Selection) -> str:
    low, high = selection.winner.interval
    tied = f", tied with {', '.join(selection.tied[1:])}" if selection.tied[1:] else ""
    score = f"{selection.metric.label} {selection.winner.mean_score:.3f} [{low:.3f}, {high:.3f}]"
    return f"{selection.recommended}: {score}{tied}"
