"""The report on MLflow's pages: a table of methods, the drawings and the page itself, on each task's parent run."""

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
from orchestrator.report.lines import MethodLine
from orchestrator.report.page import TaskPage
from orchestrator.report.svg import standalone
from orchestrator.report.write import REPORT
from orchestrator.tracking.connection import database_file, open_client, retry_while_away

if TYPE_CHECKING:
    from mlflow import MlflowClient

TABLE = "leaderboard.json"
COLUMNS = (
    "rank", "method", "state", "score", "low", "high", "seeds", "validation", "trials", "stopped",
    "trainable_parameters", "adapter_bytes", "peak_memory_bytes", "train_seconds", "latency_overhead_1", "mergeable",
    "trial",
)  # fmt: skip
PATIENCE = 20.0


def publish(history: History, report: Path, *, tracking_uri: str, patience: float = PATIENCE) -> dict[str, str]:
    """Put everything on the parent runs; doing it again writes the same files again.

    Args:
        history: of the sweep.
        report: the page.
        tracking_uri: where the runs are.
        patience: seconds to go on trying while the server is away.

    Returns:
        The run of each task; tasks without a run are missing, and nothing is there where there is no database.

    Raises:
        SweepError: if MLflow refuses, or is away for longer.
    """
    file = database_file(tracking_uri)
    if file is not None and not file.exists():
        return {}
    client = open_client(tracking_uri)
    runs = retry_while_away(lambda: _parents(client, history), patience)
    for task, run in runs.items():
        files = artifacts(history, task) | {REPORT: report.read_text(encoding="utf-8")}
        retry_while_away(partial(_log, client, run, files), patience)
    return runs


def artifacts(history: History, task: str) -> dict[str, str]:
    """A task's files by their names: the table twice, for MLflow and for spreadsheets, and the drawings."""
    page = TaskPage(history, task, {})
    rows = leaderboard(page)
    drawings = {f"plots/score-against-{fact.replace('_', '-')}.svg": drawn for fact, drawn in page.charts}
    drawings |= {f"plots/learning-curves/{_file(method)}.svg": drawn for method, drawn in page.curves.items()}
    return {
        TABLE: json.dumps({"columns": list(COLUMNS), "data": rows}),
        "leaderboard.csv": _csv(rows),
        **{name: standalone(drawn) for name, drawn in drawings.items()},
    }


def leaderboard(page: TaskPage) -> list[list[Any]]:
    """The methods as rows under :data:`COLUMNS`, best first; those that were left out are not among them."""
    tried = [line for line in page.lines if line.records]
    return [[_cell(_row(line, rank).get(column)) for column in COLUMNS] for rank, line in enumerate(tried, 1)]


def _row(line: MethodLine, rank: int) -> Mapping[str, Any]:
    entry, best = line.entry, line.best
    found: dict[str, Any] = {
        "rank": rank,
        "method": line.method,
        "state": line.words,
        "trials": len(line.records),
        **line.measurements,
    }
    found["stopped"] = line.states["pruned"]
    if best:
        found |= {"validation": best.value, "trial": str(best.key)}
    if entry:
        found |= {"score": entry.score, "low": entry.interval[0], "high": entry.interval[1]}
        found |= {"seeds": len(entry.scores), "trial": entry.trial}
    return found


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
    """The parent run of each task, the first where a sweep was mirrored twice."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    found: dict[str, str] = {}
    for task in history.tasks:
        asked = f"tags.sweep = '{history.name}' and tags.key = '{task}'"
        runs = client.search_runs(experiments, asked, order_by=["attributes.start_time ASC"], max_results=1)
        if runs:
            found[task] = runs[0].info.run_id
    return found


def _log(client: MlflowClient, run: str, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        client.log_text(run, content, name)
    # What makes MLflow's pages show it as a table.
    client.set_tag(run, "mlflow.loggedArtifacts", json.dumps([{"path": TABLE, "type": "table"}]))
