"""The runs of one sweep in MLflow: found or created by their key, and written to.

Runs are looked up by their tags before they are created, so that every write may be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.journal.events import Event
from orchestrator.tracking.connection import artifact_location, exists_already, open_client
from orchestrator.tracking.run_values import as_text, clean
from orchestrator.tracking.runs_view import view_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

MAX_PARAMS, MAX_METRICS = 100, 1000


class RunStore:
    """Finds, creates and writes the runs of one sweep.

    Args:
        tracking_uri: MLflow's tracking URI.
        experiment: name of the experiment; created where it is missing.
    """

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        self.client: MlflowClient = open_client(tracking_uri)
        self._uri, self._name = tracking_uri, experiment
        self.experiment_id = ""
        self.ids: dict[str, str] = {}
        self.params: dict[str, dict[str, str]] = {}
        self.sweep: Event = {}

    def open(self, sweep: Event) -> None:
        """Find the experiment, and the runs of the sweep that are there already."""
        self.sweep = sweep
        self.experiment_id = self._find_experiment()
        self.client.set_experiment_tag(self.experiment_id, *view_tag(sweep["sweep"], sweep["tasks"]))
        self._find_runs()

    def recall(self) -> None:
        """Read the existing runs again after a failure, since the failed request may have been carried out."""
        self.ids.clear()
        self.params.clear()
        if self.experiment_id:
            self._find_runs()

    def metric(self, key: str) -> str:
        """Return the name of the metric that the search optimizes; ``value`` where the journal does not tell it."""
        name: str = self.sweep["tasks"][key.partition("/")[0]].get("metric") or "value"
        return name

    def start(self, key: str, name: str, event: Event, tags: Mapping[str, str]) -> str:
        """Return the run of a key, running; it is created at the event's time where there is none."""
        if key not in self.ids:
            tags = {**self._common_tags(key.partition("/")[0]), **tags, "key": key}
            run = self.client.create_run(self.experiment_id, milliseconds(event), tags, run_name=name)
            self.ids[key] = run.info.run_id
        else:
            self.client.update_run(self.ids[key], status="RUNNING")
        return self.ids[key]

    def give_up(self, key: str, event: Event) -> None:
        """Give up a run that the journal does not know: a driver was lost with the last events of its journal."""
        run = self.ids[key]
        self.log(run, tags={"key": f"lost {key}", "trial_key": f"lost {key}", "state": "lost"})
        self.client.set_terminated(run, "KILLED", end_time=milliseconds(event))
        del self.ids[key]
        self.params.pop(key, None)

    def log(
        self,
        run: str,
        metrics: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        time: float = 0,
        step: int = 0,
    ) -> None:
        """Log metrics and params and set tags of a run; values that are ``None`` are left out.

        Args:
            run: id of the run.
            metrics: numbers by name.
            params: settings by name.
            tags: tags by name.
            time: time of the metrics, in seconds since 1970.
            step: optimizer step of the metrics.
        """
        from mlflow.entities import Metric, Param, RunTag

        stamp = round(time * 1000)
        run_metrics = [Metric(clean(k), float(v), stamp, step) for k, v in (metrics or {}).items() if v is not None]
        run_params = [Param(clean(k), as_text(v)) for k, v in (params or {}).items()]
        run_tags = [RunTag(clean(k), as_text(v)) for k, v in (tags or {}).items() if v is not None]
        self.log_metrics(run, run_metrics)
        for first in range(0, len(run_params), MAX_PARAMS):
            self.client.log_batch(run, params=run_params[first : first + MAX_PARAMS])
        if run_tags:
            self.client.log_batch(run, tags=run_tags)

    def log_metrics(self, run: str, metrics: Sequence[Metric]) -> None:
        """Log metrics in as many requests as MLflow needs."""
        for first in range(0, len(metrics), MAX_METRICS):
            self.client.log_batch(run, metrics=metrics[first : first + MAX_METRICS])

    def _common_tags(self, task: str) -> dict[str, str]:
        from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

        backbone = self.sweep["backbone"]
        return {
            "sweep": self.sweep["sweep"],
            "backbone": backbone["model"],
            "backbone_digest": backbone["digest"][task],
            "quantization": backbone["quantization"],
            "metric": self.metric(task),
            **({"architecture": backbone["architecture"]} if backbone.get("architecture") else {}),
            MLFLOW_SOURCE_NAME: "peft-sweep",
            MLFLOW_SOURCE_TYPE: "JOB",
        }

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        if (experiment := self.client.get_experiment_by_name(self._name)) is None:
            try:
                return self.client.create_experiment(self._name, artifact_location(self._uri, self._name))
            except MlflowException as error:
                if not exists_already(error):
                    raise
            experiment = self.client.get_experiment_by_name(self._name)
        return str(experiment.experiment_id) if experiment else ""

    def _find_runs(self) -> None:
        for run in self._existing_runs():
            key = run.data.tags.get("key", "")
            if run.data.tags.get("state") != "lost" and self.ids.setdefault(key, run.info.run_id) == run.info.run_id:
                self.params[key] = dict(run.data.params)

    def _existing_runs(self) -> Iterator[Run]:
        """Return all runs of this sweep, the oldest first."""
        token, order = None, ["attributes.start_time ASC"]
        while True:
            query = f"tags.sweep = '{self.sweep['sweep']}'"
            page = self.client.search_runs([self.experiment_id], query, order_by=order, page_token=token)
            yield from page
            if not (token := page.token):
                return


def milliseconds(event: Event) -> int:
    """Return an event's time in milliseconds since 1970."""
    return round(float(event["time"]) * 1000)
