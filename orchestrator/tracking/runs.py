"""The journal's events as MLflow runs: one parent per task, one child per trial.

Everything here may be done twice: runs are looked up by their tags before they are created, and MLflow keeps one copy
of a metric whose time, step and value are the same. So a journal can be replayed from its start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.common.trial_types import TrialKey
from orchestrator.tracking.connection import artifact_location, exists_already, open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
CLOSED = {"finished": "FINISHED", "budget": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
NOTE = "mlflow.note.content"
LONGEST_VALUE, LONGEST_KEY = 6000, 250
MOST_PARAMS, MOST_METRICS = 100, 1000

Event = Mapping[str, Any]


class RunWriter:
    """Writes one sweep's events, in their order.

    Args:
        tracking_uri: where to.
        experiment: its name; created where it is missing.
    """

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        self._client: MlflowClient = open_client(tracking_uri)
        self._uri, self._name = tracking_uri, experiment
        self._experiment = ""
        self._sweep: Event = {}
        self._runs: dict[str, str] = {}
        self._open: dict[str, None] = {}

    def run_id(self, key: str) -> str | None:
        """The run of a trial or, given a task's name, the task's parent run; none before its event was written."""
        return self._runs.get(key)

    def recall(self) -> None:
        """After a failure: take what is there from the server, since the failed request may have been carried out."""
        self._runs.clear()
        if self._experiment:
            self._find_runs()

    def write(self, event: Event) -> None:
        """Write one event; unknown ones are none of MLflow's business.

        Raises:
            MlflowException: if the server is away or refuses; write the event again after :meth:`recall`.
        """
        match event["event"]:
            case "sweep":
                self._begin(event)
            case "warm_start":
                self._warm_start(event)
            case "trial":
                self._trial(event)
            case "rung":
                self._rung(event)
            case "end":
                self._end(event)
            case "test":
                self._test(event)
            case "selection":
                self._selection(event)
            case "registered":
                registered = {"registered_model": event["name"], "registered_version": event["version"]}
                self._log(self._runs[event["task"]], tags=registered)
            case "close":
                self._close(event)
            case "resume":
                self._reopen()

    def _begin(self, event: Event) -> None:
        self._sweep = event
        self._experiment = self._find_experiment()
        self._find_runs()
        for task, facts in event["tasks"].items():
            tags = {"task": task, "data_digest": facts["digest"], "kind": "sweep"}
            self._log_config(self._run(task, f"{event['sweep']}/{task}", event, tags), task, facts)

    def _log_config(self, run: str, task: str, facts: Event) -> None:
        import yaml

        config: dict[str, Any] = dict(self._sweep["config"])
        known = self._client.get_run(run).data.params
        params = flat({**config, "tasks": {task: config.get("tasks", {}).get(task)}})
        # A resumed sweep may say otherwise, and a param that is set cannot be changed: config.yaml has the last word.
        self._log(run, params={key: value for key, value in params.items() if clean(key) not in known})
        backbone = self._sweep["backbone"]
        sizes = {f"rows_{split}": rows for split, rows in facts["rows"].items()} | {"majority": facts.get("majority")}
        sizes |= {"backbone_parameters": backbone["parameters"], "backbone_bytes": backbone["bytes"]}
        sizes |= {"labels": len(facts.get("labels", [])), "characters": facts.get("characters")}
        self._log(run, metrics=sizes, time=self._sweep["time"])
        self._client.log_text(run, yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "config.yaml")
        self._log_data(run, task, facts)

    def _log_data(self, run: str, task: str, facts: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput

        profile = json.dumps({"rows": facts["rows"], "labels": facts.get("labels", [])})
        data = Dataset(task, facts["digest"][:36], "local", json.dumps({"digest": facts["digest"]}), profile=profile)
        self._client.log_inputs(run, [DatasetInput(data)])

    def _warm_start(self, event: Event) -> None:
        """Which earlier sweeps a task began with."""
        for task in self._sweep["tasks"]:
            used = [f"{one['sweep']}/{one['earlier_task']}" for one in event["origins"] if one["task"] == task]
            self._log(self._runs[task], tags={"warm_start": ", ".join(used) or None})

    def _trial(self, event: Event) -> None:
        key = TrialKey.parse(event["trial"])
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        tags = {"task": key.task, "method": key.method, "trial_key": str(key), "state": "running", "kind": "trial"}
        tags |= {MLFLOW_PARENT_RUN_ID: self._runs[key.task]}
        run = self._run(str(key), f"{key.method}-{key.number}", event, tags)
        self._log(run, params=flat({**event["params"], "seed": event.get("seed")}))
        self._open[str(key)] = None

    def _rung(self, event: Event) -> None:
        metrics = {"value": event["value"], **event.get("measurements", {})}
        metrics |= {f"validation_{name}": value for name, value in event.get("metrics", {}).items()}
        self._log(self._runs[event["trial"]], metrics=metrics, time=event["time"], step=event["step"])

    def _end(self, event: Event) -> None:
        run = self._runs[event["trial"]]
        self._log(run, tags={"state": event["state"], "reason": event.get("reason") or None})
        self._client.set_terminated(run, STATUS[event["state"]], end_time=milliseconds(event))
        self._open.pop(event["trial"], None)

    def _test(self, event: Event) -> None:
        low, high = event["interval"]
        metrics = {f"test_{name}": value for name, value in event["metrics"].items()}
        metrics |= {"test_score": event["score"], "test_low": low, "test_high": high}
        key, facts = TrialKey.parse(event["trial"]), event.get("measurements", {})
        if (seed := event.get("seed")) is not None:
            self._log(self._runs[str(key)], {"seed_score": event["score"]}, time=event["time"], step=seed)
        if event["role"] == "seed":
            return
        self._log(self._runs[str(key)], metrics, tags={"role": event["role"]}, time=event["time"])
        # Under its last step: MLflow shows and filters by the value with the highest.
        self._log(self._runs[str(key)], facts, time=event["time"], step=event.get("step", 0))
        if event["role"] == "champion":
            tags = {"champion_trial": str(key), "champion_method": key.method}
            self._log(self._runs[key.task], {**metrics, **facts}, tags=tags, time=event["time"])

    def _selection(self, event: Event) -> None:
        """What the comparison says of each method, on the run of its best trial; the whole story on the parent run."""
        for one in (*event["finalists"], *event["others"]):
            tags = {"tied": "true" if one["tied"] else "false", "out_because": one.get("reason") or None}
            metrics = {"gap": one.get("gap"), "seeds": len(one["scores"]), **_score(one)}
            self._log(self._runs[one["trial"]], metrics, tags=tags, time=event["time"])
        best = next(one for one in event["finalists"] if one["method"] == event["recommended"])
        tags = {"recommended": event["recommended"], "tied_methods": ", ".join(event["tied"]), NOTE: story(event)}
        metrics = {
            "minimum_detectable_difference": event["minimum_detectable_difference"],
            "tied_count": len(event["tied"]),
        }
        self._log(self._runs[event["task"]], {**metrics, **_score(best)}, tags=tags, time=event["time"])

    def _close(self, event: Event) -> None:
        """The end, for now: trials that a resumed sweep may go on with are not running either."""
        for trial in self._open:
            self._log(self._runs[trial], tags={"state": "open"})
            self._client.set_terminated(self._runs[trial], "KILLED", end_time=milliseconds(event))
        for task in self._sweep["tasks"]:
            self._log(self._runs[task], tags={"state": event["reason"], "reason": event.get("message") or None})
            self._client.set_terminated(self._runs[task], CLOSED[event["reason"]], end_time=milliseconds(event))

    def _reopen(self) -> None:
        for key in (*self._sweep["tasks"], *self._open):
            self._log(self._runs[key], tags={"state": "running"})
            self._client.update_run(self._runs[key], status="RUNNING")

    def _run(self, key: str, name: str, event: Event, tags: Mapping[str, str]) -> str:
        """The run of that key, created at the event's time where there is none yet, open in any case."""
        if key not in self._runs:
            tags = {**self._common_tags(key.partition("/")[0]), **tags, "key": key}
            run = self._client.create_run(self._experiment, milliseconds(event), tags, run_name=name)
            self._runs[key] = run.info.run_id
        else:
            self._client.update_run(self._runs[key], status="RUNNING")
        return self._runs[key]

    def _common_tags(self, task: str) -> dict[str, str]:
        from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

        backbone = self._sweep["backbone"]
        return {
            "sweep": self._sweep["sweep"],
            "backbone": backbone["model"],
            "backbone_digest": backbone["digest"][task],
            "quantization": backbone["quantization"],
            **({"architecture": backbone["architecture"]} if backbone.get("architecture") else {}),
            MLFLOW_SOURCE_NAME: "peft-sweep",
            MLFLOW_SOURCE_TYPE: "JOB",
        }

    def _log(
        self,
        run: str,
        metrics: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        time: float = 0,
        step: int = 0,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        stamp = round(time * 1000)
        found = [Metric(clean(k), float(v), stamp, step) for k, v in (metrics or {}).items() if v is not None]
        given = [Param(clean(k), as_text(v)) for k, v in (params or {}).items()]
        named = [RunTag(clean(k), as_text(v)) for k, v in (tags or {}).items() if v is not None]
        for first in range(0, len(found), MOST_METRICS):
            self._client.log_batch(run, metrics=found[first : first + MOST_METRICS])
        for first in range(0, len(given), MOST_PARAMS):
            self._client.log_batch(run, params=given[first : first + MOST_PARAMS])
        if named:
            self._client.log_batch(run, tags=named)

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        if (found := self._client.get_experiment_by_name(self._name)) is None:
            try:
                return self._client.create_experiment(self._name, artifact_location(self._uri, self._name))
            except MlflowException as error:
                if not exists_already(error):
                    raise
            found = self._client.get_experiment_by_name(self._name)
        return str(found.experiment_id) if found else ""

    def _find_runs(self) -> None:
        for run in self._written():
            self._runs.setdefault(run.data.tags.get("key", ""), run.info.run_id)

    def _written(self) -> Iterator[Run]:
        """All runs of this sweep, the oldest first."""
        token, order = None, ["attributes.start_time ASC"]
        while True:
            asked = f"tags.sweep = '{self._sweep['sweep']}'"
            page = self._client.search_runs([self._experiment], asked, order_by=order, page_token=token)
            yield from page
            if not (token := page.token):
                return


def _score(entry: Mapping[str, Any]) -> dict[str, float]:
    return {"test_score": entry["score"], "test_low": entry["interval"][0], "test_high": entry["interval"][1]}


def story(event: Event) -> str:
    """A selection as Markdown: MLflow shows it as the run's description."""
    lines = [
        f"Use **{event['recommended']}**. {event['reason']}",
        f"What would change it: {event['alternative']}",
        f"| method | {event['metric']} | 95 % interval | seeds | |\n| --- | ---: | --- | ---: | --- |",
    ]
    for one in (*event["finalists"], *event["others"]):
        low, high = one["interval"]
        how = "recommended" if one["method"] == event["recommended"] else "tied" if one["tied"] else one.get("reason")
        lines[-1] += (
            f"\n| {one['method']} | {one['score']:.3f} | {low:.3f} to {high:.3f} | {len(one['scores'])} | {how or ''} |"
        )
    seen = f"{event['rows']:,} test rows; differences of {event['minimum_detectable_difference']:.3f} could have been seen."
    return "\n\n".join([*lines, seen, "The whole report is among the artifacts: `report.html`."])


def milliseconds(event: Event) -> int:
    """When it happened, as MLflow counts."""
    return round(float(event["time"]) * 1000)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names; nothing for what is not set."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def clean(key: str) -> str:
    """A name that every MLflow store takes."""
    return re.sub(r"[^\w.\- ]", "_", key)[:LONGEST_KEY]


def as_text(value: Any) -> str:
    """A param or tag as MLflow keeps it; too long ones lose their end."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
