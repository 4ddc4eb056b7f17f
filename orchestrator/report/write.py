"""From a sweep's folder to its report."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.common.errors import InputError, Problem
from orchestrator.report.history import History
from orchestrator.report.importance import importances
from orchestrator.report.page import page
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.sweeps import JOURNAL

REPORT, OPTUNA = "report.html", "optuna.log"


def read_history(folder: Path) -> History:
    """What a sweep's journal tells.

    Args:
        folder: the sweep's, with its journal.

    Raises:
        SweepError: if the journal is damaged.
    """
    return History.of(folder.name, Journal.read(folder / JOURNAL))


def render(folder: Path, history: History) -> str:
    """The page of a sweep, from its journal and Optuna's file."""
    studies = dict.fromkeys(record.key.study for record in history.trials)
    return page(history, importances(folder / OPTUNA, studies))


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report; whoever reads an earlier one meanwhile sees the whole old page or the whole new one.

    Args:
        folder: the sweep's, with its journal.
        out: where to; ``report.html`` in the folder if left out.

    Raises:
        InputError: if the file cannot be written.
        SweepError: if the journal is damaged.
    """
    target = out or folder / REPORT
    whole = render(folder, read_history(folder))
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_text(whole, encoding="utf-8")
        beside.replace(target)
    except OSError as error:
        raise InputError(
            str(target), [Problem("", f"cannot be written ({error.strerror}); write --out FILE")]
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    return target
