"""Writing of the report at the end of a sweep."""

from __future__ import annotations

import logging
from pathlib import Path

from orchestrator.report.write import read_history, write_report

log = logging.getLogger(__name__)


def report_at_end(folder: Path, *, tracking_uri: str | None) -> None:
    """Write the report and log it. A failure is logged alone, since ``peft-sweep report`` can write it later.

    Args:
        folder: folder of the sweep.
        tracking_uri: MLflow's tracking URI; ``None`` to leave MLflow alone, as where it lacks a part of the journal.
    """
    try:
        file = write_report(folder)
        if tracking_uri:
            from orchestrator.report.publish import publish

            publish(read_history(folder), file, tracking_uri=tracking_uri)
    except Exception:
        log.exception("the report of %s was not written; peft-sweep report writes one", folder.name)
