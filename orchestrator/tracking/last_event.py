"""Look whether MLflow has all of a finished sweep: its events are written in their order, the end last."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.journal.events import Event
from orchestrator.tracking.connection import database_file, open_client
from orchestrator.tracking.run_store import milliseconds


def has_end(tracking_uri: str, experiment: str, sweep: str, tasks: Iterable[str], close: Event) -> bool:
    """Return whether the runs of all tasks of a sweep have ended when its journal says that it did.

    An experiment or a sqlite file that was deleted is left alone: that was somebody's wish.

    Args:
        tracking_uri: MLflow's tracking URI.
        experiment: name of the experiment.
        sweep: name of the sweep.
        tasks: its tasks.
        close: the last event of its journal.

    Raises:
        MlflowException: if MLflow cannot be reached.
    """
    if (file := database_file(tracking_uri)) is not None and not file.exists():
        return True
    client = open_client(tracking_uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return False
    if found.lifecycle_stage == "deleted":
        return True
    query = f"tags.sweep = '{sweep}' and attributes.end_time = {milliseconds(close)}"
    return {run.data.tags.get("key") for run in client.search_runs([found.experiment_id], query)} >= set(tasks)
