"""Write to MLflow what the driver of a finished sweep could not: it was killed at its end, or MLflow was away then."""

from __future__ import annotations

from pathlib import Path

from orchestrator.common.output_capture import output_to
from orchestrator.common.uris import has_masked_secrets, masked_first_line
from orchestrator.journal.folders import JOURNAL
from orchestrator.sweep.followers import EXPORT_TIMEOUT_S
from orchestrator.sweep.saved_state import SavedSweep


def export_late(saved: SavedSweep, file: Path | None) -> str:
    """Write the end of a finished sweep to MLflow, and its report, if they are not there.

    Data, checkpoint and plugins need not be there any more.

    Args:
        saved: the sweep's recorded state.
        file: its configuration file, needed if MLflow's URI contains a password, which the journal does not record.

    Returns:
        What was written, or why nothing was; empty where MLflow lacked nothing.

    Raises:
        InputError: if there is no such file, or it is no configuration.
    """
    if not (uri := _tracking_uri(saved, file)):
        return "MLflow was not looked at: its URI contains a password, which is not recorded; add --config SWEEP.yaml"
    with output_to(saved.folder / "sweep.log"):
        return _export(saved, uri)


def _export(saved: SavedSweep, uri: str) -> str:
    from orchestrator.report.ending import report_at_end
    from orchestrator.tracking.last_event import has_end
    from orchestrator.tracking.mlflow_exporter import MlflowExporter

    config = saved.description["config"]
    experiment = config["mlflow"].get("experiment") or config["name"]
    try:
        if has_end(uri, experiment, saved.sweep, saved.description["tasks"], saved.events[-1]):
            return ""
    except Exception as error:  # clients of other services than MLflow's own have errors of their own
        return f"MLflow cannot be reached: {masked_first_line(error)}"
    exporter = MlflowExporter(saved.folder / JOURNAL, tracking_uri=uri, experiment=experiment)
    exporter.start()
    if not exporter.close(EXPORT_TIMEOUT_S):
        return f"MLflow lacks {exporter.pending} events: {exporter.last_error}"
    report_at_end(saved.folder, tracking_uri=uri)
    return "MLflow lacked the sweep's end, which is written now"


def _tracking_uri(saved: SavedSweep, file: Path | None) -> str:
    """Return MLflow's tracking URI; empty if it is not known for a password."""
    from orchestrator.config import load_config
    from orchestrator.tracking.connection import SQLITE

    uri = load_config(file).mlflow.tracking_uri if file else str(saved.description["config"]["mlflow"]["tracking_uri"])
    if uri.startswith(SQLITE):
        return f"{SQLITE}{Path(saved.description['directory']) / uri.removeprefix(SQLITE)}"
    return "" if has_masked_secrets(uri) else uri
