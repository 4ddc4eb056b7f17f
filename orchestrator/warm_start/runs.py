"""Read earlier sweeps from their runs in MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.browse import reaching
from orchestrator.tracking.connection import database_file, open_client
from orchestrator.tracking.run_values import clean
from orchestrator.warm_start.earlier import EarlierTask, EarlierTrial
from orchestrator.warm_start.task_metadata import TaskMetadata

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MAX_RUNS = 500
"""Largest number of sweeps' runs that are read, the latest ones."""
_PAGE_SIZE = 500
_NUMBERS = ("labels", "backbone_parameters", "rows_train", "characters")
_SWEEPS = "tags.kind = 'sweep'"


class RecordedSweeps:
    """The sweeps that a tracking server has recorded. The server is asked only when they are needed.

    Args:
        tracking_uri: The server.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._open_client: MlflowClient | None = None

    def recent(self) -> list[EarlierTask]:
        """Return the tasks of the latest sweeps.

        Raises:
            SweepError: If the server cannot be reached.
        """
        return self._tasks(_SWEEPS)

    def named(self, sweep: str) -> list[EarlierTask]:
        """Return a sweep's tasks; none if there is no such sweep.

        Raises:
            SweepError: If the server cannot be reached.
        """
        return [] if "'" in sweep else self._tasks(f"{_SWEEPS} and tags.sweep = '{sweep}'")

    def _tasks(self, query: str) -> list[EarlierTask]:
        file = database_file(self._uri)
        if file is not None and not file.exists():  # MLflow would create an empty database
            return []
        with reaching(self._uri):
            runs = self._runs(self._experiments(), query, MAX_RUNS)
            return [task for run in runs if (task := self._earlier_task(run)) is not None]

    def _earlier_task(self, run: Run) -> EarlierTask | None:
        """Return the task of a sweep that a parent run stands for, or ``None`` if no sweep wrote the run."""
        task_metadata, tags = _task_metadata(run), run.data.tags
        if task_metadata.type not in TASK_TYPES or "sweep" not in tags:
            return None
        return EarlierTask(
            sweep=tags["sweep"],
            task=tags["task"],
            task_metadata=task_metadata,
            higher_is_better=TASK_TYPES[task_metadata.type].metric(task_metadata.metric).higher_is_better,
            read=self._trial_reader(run),
        )

    def _trial_reader(self, parent: Run) -> Callable[[], Sequence[EarlierTrial]]:
        def read() -> list[EarlierTrial]:
            query = f"tags.kind = 'trial' and tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
            with reaching(self._uri):
                return [_earlier_trial(run) for run in self._runs([parent.info.experiment_id], query)]

        return read

    @property
    def _client(self) -> MlflowClient:
        self._open_client = self._open_client or open_client(self._uri)
        return self._open_client

    def _experiments(self) -> list[str]:
        experiments, token = [], None
        while True:
            page = self._client.search_experiments(page_token=token)
            experiments += [experiment.experiment_id for experiment in page]
            if not (token := page.token):
                return experiments

    def _runs(self, experiments: list[str], query: str, limit: float = math.inf) -> Iterator[Run]:
        """Yield the runs that a query matches, the latest first, until a page reaches the limit."""
        token, count, order = None, 0, ["attributes.start_time DESC"]
        while count < limit:
            page = self._client.search_runs(
                experiments, query, max_results=_PAGE_SIZE, order_by=order, page_token=token
            )
            yield from page
            count += len(page)
            if not (token := page.token):
                return


def _task_metadata(run: Run) -> TaskMetadata:
    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    task = clean(f"tasks.{tags.get('task', '')}")
    # Numbers of the task are parameters of its run; earlier releases logged them as metrics.
    numbers = {name: _number(params[name]) for name in _NUMBERS if name in params} | metrics
    labels = numbers.get("labels")
    return TaskMetadata(
        backbone=tags.get("backbone", ""),
        digest=tags.get("backbone_digest", ""),
        architecture=tags.get("architecture", ""),
        parameters=numbers.get("backbone_parameters", 0),
        type=params.get(f"{task}.type", ""),
        metric=params.get(f"{task}.metric", ""),
        labels=None if labels is None else round(labels),
        rows=numbers.get("rows_train", 0),
        characters=numbers.get("characters", 0),
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _earlier_trial(run: Run) -> EarlierTrial:
    tags, data = run.data.tags, run.data
    objective = clean(f"validation_{tags['metric']}") if "metric" in tags else "value"
    return EarlierTrial(
        trial=tags.get("trial_key", ""),
        method=tags.get("method", ""),
        params=data.params,
        state=tags.get("state", ""),
        value=data.metrics.get(objective, data.metrics.get("value", math.nan)),
    )
