"""The journal's events as MLflow runs: one parent run per task, one child run per trial.

Every write may be repeated: runs are looked up by their tags before they are created, and MLflow keeps one copy of a
metric whose time, step and value are the same. So a journal can be exported again from its start.
"""

from __future__ import annotations

import json
from typing import Any

from orchestrator.common.trial_types import TrialKey
from orchestrator.journal.events import Event
from orchestrator.tracking.final_runs import FinalRuns
from orchestrator.tracking.run_store import RunStore, milliseconds
from orchestrator.tracking.run_values import as_text, clean, flat

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "killed": "KILLED"}
CLOSED = {"finished": "FINISHED", "budget": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class RunWriter:
    """Writes the events of one sweep, in their order.

    Args:
        tracking_uri: MLflow's tracking URI.
        experiment: name of the experiment; created where it is missing.
    """

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        self._store = RunStore(tracking_uri, experiment)
        self._final = FinalRuns(self._store)
        self._sweep: Event = {}
        self._written: set[str] = set()
        self._open: dict[str, None] = {}
        self._measured: dict[str, set[str]] = {}

    def run_id(self, key: str) -> str | None:
        """Return the run of a trial, or the parent run of a task; ``None`` before its event was written."""
        return self._store.ids.get(key)

    @property
    def experiment_id(self) -> str:
        """Id of the experiment; empty before the first event."""
        return self._store.experiment_id

    def recall(self) -> None:
        """Read the existing runs again after a failure, since the failed request may have been carried out."""
        self._store.recall()

    def write(self, event: Event) -> None:
        """Write one event; kinds that are not exported are ignored.

        Raises:
            MlflowException: if the server is unreachable or refuses; write the event again after :meth:`recall`.
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
                self._final.test(event, self._measured.get(event["trial"], ()))
            case "selection":
                self._final.selection(event)
            case "selection_overall":
                self._final.overall(event)
            case "samples":
                self._final.samples(event)
            case "registered":
                self._final.registered(event)
            case "close" if self._sweep:  # without, the sweep failed before it had runs
                self._close(event)
            case "resume":
                self._reopen()

    def _begin(self, event: Event) -> None:
        self._sweep = event
        self._store.open(event)
        for task, data in event["tasks"].items():
            tags = {"task": task, "data_digest": data["digest"], "kind": "sweep"}
            self._log_config(self._store.start(task, f"{event['sweep']}/{task}", event, tags), task, data)

    def _log_config(self, run: str, task: str, data: Event) -> None:
        import yaml

        config: dict[str, Any] = dict(self._sweep["config"])
        logged = self._store.client.get_run(run).data.params
        params = flat({**config, "tasks": {task: config.get("tasks", {}).get(task)}})
        # MLflow does not let a param change, and a resumed sweep may have another value: config.yaml is rewritten.
        backbone = self._sweep["backbone"]
        sizes = {f"rows_{split}": rows for split, rows in data["rows"].items()} | {"majority": data.get("majority")}
        sizes |= {"backbone_parameters": backbone["parameters"], "backbone_bytes": backbone["bytes"]}
        sizes |= {"labels": len(data.get("labels", [])), "characters": data.get("characters")}
        if data.get("majority") is None:
            sizes |= {"baseline": data.get("baseline")}
        params |= {name: value for name, value in sizes.items() if value is not None}
        self._store.log(run, params={key: value for key, value in params.items() if clean(key) not in logged})
        self._store.client.log_text(run, yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "config.yaml")
        self._log_data(run, task, data)

    def _log_data(self, run: str, task: str, data: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        profile = json.dumps({"rows": data["rows"], "labels": data.get("labels", [])})
        reference = self._sweep["config"].get("tasks", {}).get(task, {}).get("data", "")
        source = json.dumps({"uri": reference, "digest": data["digest"]})
        columns = [{"type": "string", "name": name, "required": True} for name in data.get("columns", {}).values()]
        schema = json.dumps({"mlflow_colspec": columns})
        dataset = Dataset(task, data["digest"][:36], "local", source, schema, profile)
        context = InputTag(MLFLOW_DATASET_CONTEXT, ", ".join(data["rows"]))
        self._store.client.log_inputs(run, [DatasetInput(dataset, [context])])

    def _warm_start(self, event: Event) -> None:
        """Tag each task with the earlier sweeps that it was warm-started from."""
        for task in self._sweep["tasks"]:
            sources = [f"{origin['sweep']}/{origin['earlier_task']}" for origin in event["origins"]
                       if origin["task"] == task]  # fmt: skip
            self._store.log(self._store.ids[task], tags={"warm_start": ", ".join(sources) or None})

    def _trial(self, event: Event) -> None:
        key = TrialKey.parse(event["trial"])
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        tags = {"task": key.task, "method": key.method, "trial_key": str(key), "state": "running", "kind": "trial"}
        tags |= {MLFLOW_PARENT_RUN_ID: self._store.ids[key.task]}
        params = flat({**event["params"], "seed": event.get("seed")})
        texts = {clean(name): as_text(value) for name, value in params.items()}
        if any(texts.get(name) != value for name, value in self._store.params.get(str(key), {}).items()):
            self._store.give_up(str(key), event)
        run = self._store.start(str(key), f"{key.method}-{key.number}", event, tags)
        self._store.log(run, params=params)
        self._written.add(str(key))
        self._open[str(key)] = None

    def _rung(self, event: Event) -> None:
        trial, measurements = event["trial"], event.get("measurements", {})
        metrics = {**measurements, f"validation_{self._store.metric(trial)}": event["value"]}
        metrics |= {f"validation_{name}": value for name, value in event.get("metrics", {}).items()}
        self._measured.setdefault(trial, set()).update(measurements)
        self._store.log(self._store.ids[trial], metrics=metrics, time=event["time"], step=event["step"])
        self._log_curve(event)

    def _log_curve(self, event: Event) -> None:
        """Log the training curve that an event carries; MLflow draws the quantities in a section ``train``."""
        from mlflow.entities import Metric

        stamp, curve = milliseconds(event), event.get("curve") or {}
        points = [
            Metric(f"train/{name}", value, stamp, round(step))
            for name, values in curve.items()
            if name != "step"
            for step, value in zip(curve["step"], values, strict=True)
            if value is not None
        ]
        self._store.log_metrics(self._store.ids[event["trial"]], points)

    def _end(self, event: Event) -> None:
        run = self._store.ids[event["trial"]]
        self._log_curve(event)
        self._store.log(run, tags={"state": event["state"], "reason": event.get("reason") or None})
        self._store.client.set_terminated(run, STATUS[event["state"]], end_time=milliseconds(event))
        self._open.pop(event["trial"], None)

    def _close(self, event: Event) -> None:
        """End all runs; trials that a resumed sweep may continue are marked as open."""
        if CLOSED[event["reason"]] == "FINISHED":  # otherwise trials may follow, whose runs are there already
            for key in self._store.ids.keys() - self._written - self._sweep["tasks"].keys():
                self._store.give_up(key, event)
        for trial in self._open:
            self._store.log(self._store.ids[trial], tags={"state": "open"})
            self._store.client.set_terminated(self._store.ids[trial], "KILLED", end_time=milliseconds(event))
        state = {"state": event["reason"], "reason": event.get("message") or None}
        for task in self._sweep["tasks"]:
            run = self._store.ids[task]
            self._store.log(run, tags=state)
            self._store.client.set_terminated(run, CLOSED[event["reason"]], end_time=milliseconds(event))

    def _reopen(self) -> None:
        for key in (*self._sweep["tasks"], *self._open):
            self._store.log(self._store.ids[key], tags={"state": "running"})
            self._store.client.update_run(self._store.ids[key], status="RUNNING")
