"""Earlier sweeps, read from the runs that they left in MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.browse import reaching
from orchestrator.tracking.connection import database_file, open_client
from orchestrator.tracking.runs import clean
from orchestrator.warm_start.earlier import Earlier, Tried
from orchestrator.warm_start.task_metadata import TaskMetadata

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RECENT = 500
"""So many sweeps are looked at, the latest ones."""
_PAGE = 500
_SWEEPS = "tags.kind = 'sweep'"


class RecordedSweeps:
    """The sweeps that a tracking server knows. Nothing is asked of it before it is needed.

    Args:
        tracking_uri: where it is.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._opened: MlflowClient | None = None

    def recent(self) -> list[Earlier]:
        """The latest sweeps' tasks.

        Raises:
            SweepError: if the server cannot be reached.
        """
        return self._tasks(_SWEEPS)

    def named(self, sweep: str) -> list[Earlier]:
        """A sweep's tasks; none if there is no such sweep.

        Raises:
            SweepError: if the server cannot be reached.
        """
        return [] if "'" in sweep else self._tasks(f"{_SWEEPS} and tags.sweep = '{sweep}'")

    def _tasks(self, wanted: str) -> list[Earlier]:
        file = database_file(self._uri)
        if file is not None and not file.exists():  # MLflow would make an empty one
            return []
        with reaching(self._uri):
            runs = self._runs(self._experiments(), wanted, RECENT)
            return [found for run in runs if (found := self._earlier(run)) is not None]

    def _earlier(self, run: Run) -> Earlier | None:
        """A parent run as a task of a sweep, or ``None`` if something else than a sweep wrote it."""
        task_metadata, tags = _task_metadata(run), run.data.tags
        if task_metadata.type not in TASK_TYPES or "sweep" not in tags:
            return None
        return Earlier(
            sweep=tags["sweep"],
            task=tags["task"],
            task_metadata=task_metadata,
            higher_is_better=TASK_TYPES[task_metadata.type].metric(task_metadata.metric).higher_is_better,
            read=self._reader(run),
        )

    def _reader(self, parent: Run) -> Callable[[], Sequence[Tried]]:
        def read() -> list[Tried]:
            wanted = f"tags.kind = 'trial' and tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
            with reaching(self._uri):
                return [_tried(run) for run in self._runs([parent.info.experiment_id], wanted)]

        return read

    @property
    def _client(self) -> MlflowClient:
        self._opened = self._opened or open_client(self._uri)
        return self._opened

    def _experiments(self) -> list[str]:
        found, token = [], None
        while True:
            page = self._client.search_experiments(page_token=token)
            found += [one.experiment_id for one in page]
            if not (token := page.token):
                return found

    def _runs(self, experiments: list[str], wanted: str, most: float = math.inf) -> Iterator[Run]:
        """The latest first."""
        token, seen, order = None, 0, ["attributes.start_time DESC"]
        while seen < most:
            page = self._client.search_runs(experiments, wanted, max_results=_PAGE, order_by=order, page_token=token)
            yield from page
            seen += len(page)
            if not (token := page.token):
                return


def _task_metadata(run: Run) -> TaskMetadata:
    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    task = clean(f"tasks.{tags.get('task', '')}")
    labels = metrics.get("labels")
    return TaskMetadata(
        backbone=tags.get("backbone", ""),
        digest=tags.get("backbone_digest", ""),
        architecture=tags.get("architecture", ""),
        parameters=metrics.get("backbone_parameters", 0),
        type=params.get(f"{task}.type", ""),
        metric=params.get(f"{task}.metric", ""),
        labels=None if labels is None else round(labels),
        rows=metrics.get("rows_train", 0),
        characters=metrics.get("characters", 0),
    )


def _tried(run: Run) -> Tried:
    tags, data = run.data.tags, run.data
    return Tried(
        trial=tags.get("trial_key", ""),
        method=tags.get("method", ""),
        params=data.params,
        state=tags.get("state", ""),
        value=data.metrics.get("value", math.nan),
    )
