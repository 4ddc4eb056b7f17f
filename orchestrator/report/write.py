"""Reading of a sweep's folder, and writing of its report."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.common.errors import InputError, Problem
from orchestrator.journal.events import Journal
from orchestrator.journal.folders import JOURNAL
from orchestrator.report.history import History
from orchestrator.report.importance import importances
from orchestrator.report.page import page

REPORT, OPTUNA = "report.html", "optuna.log"


def read_history(folder: Path) -> History:
    """Return the history of a sweep.

    Args:
        folder: folder of the sweep, with its journal.

    Raises:
        SweepError: if the journal is damaged.
    """
    return History.of(folder.name, Journal.read(folder / JOURNAL))


def render(folder: Path, history: History) -> str:
    """Return the page of a sweep, from its history and Optuna's file."""
    studies = dict.fromkeys(record.key.study for record in history.trials)
    return page(history, importances(folder / OPTUNA, studies))


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report, and return its path. An earlier one is replaced at once, so that readers never see half a page.

    Args:
        folder: folder of the sweep, with its journal.
        out: path of the report; ``report.html`` in the folder if left out.

    Raises:
        InputError: if the file cannot be written.
        SweepError: if the journal is damaged.
    """
    target = out or folder / REPORT
    html = render(folder, read_history(folder))
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        raise InputError(
            str(target), [Problem("", f"cannot be written ({error.strerror}); write --out FILE")]
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return target
