"""The tag by which MLflow's pages show artifacts of a run as tables; several parts of a sweep add to it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


def list_tables(client: MlflowClient, run: str, names: Iterable[str]) -> None:
    """Let artifacts be shown as tables, beside those that are; again changes nothing.

    ``MlflowClient.log_table`` does the same, but appends to a table that is there.

    Args:
        client: client of the tracking server.
        run: id of the run.
        names: paths of the artifacts.
    """
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

    before = json.loads(client.get_run(run).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
    added = [entry for name in names if (entry := {"path": name, "type": "table"}) not in before]
    if added:
        client.set_tag(run, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*before, *added]))
