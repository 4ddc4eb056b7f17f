"""A sweep's saved view in MLflow: its runs with the columns that tell trials apart, sorted by their score.

MLflow's page keeps a table that somebody has arranged and shared as a tag of the experiment, and opens it from a link.
The same tag is written here. Without the link the page opens on traces, of which there are none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

SHARED_VIEW = "mlflow.sharedViewState."
"""Tag of a shared view, followed by its key."""
COLUMNS = ("tags.`method`", "tags.`state`")


def view_tag(sweep: str, tasks: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Return name and value of the experiment's tag that is the saved view of a sweep's runs.

    Args:
        sweep: name of the sweep.
        tasks: the tasks of its ``sweep`` event, with ``metric`` and ``higher_is_better``.
    """
    scores = {
        f"validation_{task.get('metric') or 'value'}": task.get("higher_is_better", True) for task in tasks.values()
    }
    first, higher_is_better = next(iter(scores.items()))
    metrics = ["mean_score", *scores]
    view = {
        "searchFilter": f"tags.sweep = '{sweep}'",
        "orderByKey": f"metrics.`{first}`",
        "orderByAsc": not higher_is_better,
        "selectedColumns": [*COLUMNS, *(f"metrics.`{name}`" for name in metrics)],
    }
    return f"{SHARED_VIEW}{sweep}", json.dumps(view)


def view_page(experiment: str, sweep: str) -> str:
    """Return the place of a sweep's saved view, relative to MLflow's address."""
    query = f"workflowType=machine_learning&viewStateShareKey={quote(sweep, safe='')}"
    return f"#/experiments/{experiment}/runs?{query}"
