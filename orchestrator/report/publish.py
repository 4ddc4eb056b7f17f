"""The report in MLflow: a table of methods, the drawings and the page, as artifacts of each task's parent run."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.report.history import History
from orchestrator.report.method_rows import MethodRow
from orchestrator.report.page import TaskPage
from orchestrator.report.svg import standalone
from orchestrator.report.write import REPORT
from orchestrator.tracking.connection import database_file, open_client, retry_while_away
from orchestrator.tracking.tables import list_tables

if TYPE_CHECKING:
    from mlflow import MlflowClient

TABLE = "leaderboard.json"
COLUMNS = (
    "rank", "method", "state", "mean_score", "low", "high", "seeds", "checkpoint_score", "validation", "trials",
    "stopped", "trainable_parameters", "adapter_bytes", "peak_memory_bytes", "train_seconds", "latency_overhead_1",
    "mergeable", "trial",
)  # fmt: skip
RETRY_TIMEOUT_S = 20.0


def publish(history: History, report: Path, *, tracking_uri: str, timeout: float = RETRY_TIMEOUT_S) -> dict[str, str]:
    """Log all artifacts to the parent runs; logging them again overwrites them with the same content.

    Args:
        history: history of the sweep.
        report: path of the page.
        tracking_uri: MLflow's tracking URI.
        timeout: seconds for which requests are retried while the server cannot be reached.

    Returns:
        Run of each task; tasks without a run are missing, and all are where there is no database.

    Raises:
        SweepError: if MLflow refuses, or cannot be reached for longer.
    """
    file = database_file(tracking_uri)
    if file is not None and not file.exists():
        return {}
    client = open_client(tracking_uri)
    runs = retry_while_away(lambda: _parents(client, history), timeout)
    for task, run in runs.items():
        files = artifacts(history, task) | {REPORT: report.read_text(encoding="utf-8")}
        retry_while_away(partial(_log, client, run, files), timeout)
    return runs


def artifacts(history: History, task: str) -> dict[str, str]:
    """Return a task's files by name: the table, once for MLflow and once for spreadsheets, and the drawings."""
    page = TaskPage(history, task, {})
    rows = leaderboard(page)
    drawings = {f"plots/score-against-{name.replace('_', '-')}.svg": drawing for name, drawing in page.charts}
    drawings |= {f"plots/learning-curves/{_file(method)}.svg": drawing for method, drawing in page.curves.items()}
    return {
        TABLE: json.dumps({"columns": list(COLUMNS), "data": rows}),
        "leaderboard.csv": _csv(rows),
        **{name: standalone(drawing) for name, drawing in drawings.items()},
    }


def leaderboard(page: TaskPage) -> list[list[Any]]:
    """Return the methods as rows under :data:`COLUMNS`, best first, without those that were left out."""
    tried = [row for row in page.rows if row.records]
    return [[_cell(_values(row, rank).get(column)) for column in COLUMNS] for rank, row in enumerate(tried, 1)]


def _values(row: MethodRow, rank: int) -> Mapping[str, Any]:
    result, best = row.result, row.best
    values: dict[str, Any] = {
        "rank": rank,
        "method": row.method,
        "state": row.status_text,
        "trials": len(row.records),
        "stopped": row.states["pruned"],
        **row.measurements,
    }
    if best:
        values |= {"validation": best.value, "trial": str(best.key)}
    if result:
        values |= {"mean_score": result.mean_score, "low": result.interval[0], "high": result.interval[1]}
        values |= {"seeds": len(result.seed_scores), "checkpoint_score": result.checkpoint_score}
        values |= {"trial": result.trial}
    return values


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else round(value, 6)
    return value


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def _file(method: str) -> str:
    return method.translate(str.maketrans(":+=/", ".-~-"))


def _parents(client: MlflowClient, history: History) -> dict[str, str]:
    """Return the parent run of each task, the first where a sweep was exported twice."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    parents: dict[str, str] = {}
    for task in history.tasks:
        query = f"tags.sweep = '{history.name}' and tags.key = '{task}'"
        runs = client.search_runs(experiments, query, order_by=["attributes.start_time ASC"], max_results=1)
        if runs:
            parents[task] = runs[0].info.run_id
    return parents


def _log(client: MlflowClient, run: str, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        client.log_text(run, content, name)
    list_tables(client, run, [TABLE])
