"""The report that every sweep writes at its end."""

from __future__ import annotations

import logging
from pathlib import Path

from orchestrator.report.write import read_history, write_report

log = logging.getLogger(__name__)


def report_at_end(folder: Path, *, tracking_uri: str | None) -> None:
    """Write the report and log it; a sweep does not fail for it, since the command can do it later.

    Args:
        folder: the sweep's.
        tracking_uri: MLflow's, once it has taken the whole journal; ``None`` leaves it alone.
    """
    try:
        file = write_report(folder)
        if tracking_uri:
            from orchestrator.report.publish import publish

            publish(read_history(folder), file, tracking_uri=tracking_uri)
    except Exception:
        log.exception("there is no whole report of %s; peft-sweep report writes one", folder.name)
