"""``peft-sweep report``: writes the page, logs it, and says where it is."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.cli.output.console import console, program
from orchestrator.common.errors import InputError, Problem, SweepError
from orchestrator.common.units import size
from orchestrator.common.uris import mask_secrets
from orchestrator.report.history import History
from orchestrator.report.write import read_history, write_report
from orchestrator.selection.selection import Selection
from orchestrator.tracking.sweeps import find_sweep


@dataclass(frozen=True, kw_only=True)
class MadeReport:
    """A report that was written.

    Args:
        history: what it tells of.
        file: the page.
        folder: the sweep's.
        tracking_uri: MLflow's.
        runs: that it was logged to, by task.
        unlogged: why it was not.
    """

    history: History
    file: Path
    folder: Path
    tracking_uri: str
    runs: dict[str, str] = field(default_factory=dict)
    unlogged: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "sweep": self.history.name,
            "report": str(self.file),
            "bytes": self.file.stat().st_size,
            "ended": self.history.reason,
            "recommended": {task: one.recommended for task, one in self.history.selections.items()},
            "mlflow_runs": self.runs,
            "not_logged": self.unlogged or None,
        }


def made_report(sweep: str, out: Path | None, *, storage: str, tracking_uri: str, mlflow: bool) -> MadeReport:
    """Write the report of a sweep and log it.

    Args:
        sweep: its name or folder.
        out: where to; ``report.html`` in the sweep's folder if left out.
        storage: where sweeps are.
        tracking_uri: MLflow's; the sweep's own if left out.
        mlflow: whether to log it at all; an MLflow that is not at hand is no error.

    Raises:
        InputError: if there is no such sweep, or the file cannot be written.
        SweepError: if the journal is damaged.
    """
    if out is not None and out.is_dir():
        raise InputError("--out", [Problem(str(out), f"is a folder; write {out / 'report.html'}")])
    folder = find_sweep(sweep, storage)
    history = read_history(folder)
    file = write_report(folder, out).absolute()
    uri = tracking_uri or str(history.config.get("mlflow", {}).get("tracking_uri") or "")
    runs, unlogged = _logged(history, file, uri) if mlflow and uri else ({}, "it was not asked for")
    return MadeReport(history=history, file=file, folder=folder, tracking_uri=uri, runs=runs, unlogged=unlogged)


def _logged(history: History, file: Path, uri: str) -> tuple[dict[str, str], str]:
    from orchestrator.report.publish import publish

    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells every table of a database
    try:
        runs = publish(history, file, tracking_uri=uri, patience=2.0)
    except SweepError as error:
        return {}, str(error)
    return runs, "" if runs else f"{mask_secrets(uri)} has no run of this sweep"


def print_report(made: MadeReport) -> None:
    """Where it is, what it says first, and what to type next."""
    history = made.history
    for task, one in history.selections.items():
        console.print(f"{task}: {_words(one)}")
    if not history.selections:
        console.print(f"{history.name} has named no winner ({history.reason}); the report tells what there is.")
    console.print(f"  report   {made.file} ({size(made.file.stat().st_size)})")
    if made.runs:
        console.print(f"  logged   to {len(made.runs)} MLflow run{'s' if len(made.runs) > 1 else ''} of the sweep")
    elif made.unlogged != "it was not asked for":
        console.print(f"  not logged to MLflow: {made.unlogged}")
    if history.selections:
        console.print(f"  ask      {program()} select {made.folder.name} --max-size 1MB")


def _words(one: Selection) -> str:
    best = one.winner
    tied = f", tied with {', '.join(one.tied[1:])}" if one.tied[1:] else ""
    return f"{one.recommended} {best.score:.3f} [{best.interval[0]:.3f}, {best.interval[1]:.3f}]{tied}"
