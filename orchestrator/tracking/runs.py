"""The journal's events as MLflow runs: one parent run per task, one child run per trial.

Every write may be repeated: runs are looked up by their tags before they are created, and MLflow keeps one copy of a
metric whose time, step and value are the same. So a journal can be exported again from its start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.common.trial_types import TrialKey
from orchestrator.selection.baseline import state_of
from orchestrator.selection.looks import level_text
from orchestrator.tracking.champion_note import champion_note, with_note
from orchestrator.tracking.connection import artifact_location, exists_already, open_client
from orchestrator.tracking.runs_view import view_page, view_tag
from orchestrator.tracking.tables import list_tables
from orchestrator.tracking.versions import version_link

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "killed": "KILLED"}
CLOSED = {"finished": "FINISHED", "budget": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
NOTE = "mlflow.note.content"
SAMPLES = "samples.json"
MAX_VALUE_LENGTH, MAX_KEY_LENGTH = 6000, 250
MAX_PARAMS, MAX_METRICS = 100, 1000

Event = Mapping[str, Any]


class RunWriter:
    """Writes the events of one sweep, in their order.

    Args:
        tracking_uri: MLflow's tracking URI.
        experiment: name of the experiment; created where it is missing.
    """

    def __init__(self, tracking_uri: str, experiment: str) -> None:
        self._client: MlflowClient = open_client(tracking_uri)
        self._uri, self._name = tracking_uri, experiment
        self._experiment = ""
        self._sweep: Event = {}
        self._runs: dict[str, str] = {}
        self._params: dict[str, dict[str, str]] = {}
        self._written: set[str] = set()
        self._open: dict[str, None] = {}
        self._measured: dict[str, set[str]] = {}
        self._selections: dict[str, Event] = {}
        self._bytes: dict[str, float] = {}

    def run_id(self, key: str) -> str | None:
        """Return the run of a trial, or the parent run of a task; ``None`` before its event was written."""
        return self._runs.get(key)

    @property
    def experiment_id(self) -> str:
        """Id of the experiment; empty before the first event."""
        return self._experiment

    def recall(self) -> None:
        """Read the existing runs again after a failure, since the failed request may have been carried out."""
        self._runs.clear()
        self._params.clear()
        if self._experiment:
            self._find_runs()

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
                self._test(event)
            case "selection":
                self._selection(event)
            case "samples":
                self._samples(event)
            case "registered":
                self._registered(event)
            case "close" if self._sweep:  # without, the sweep failed before it had runs
                self._close(event)
            case "resume":
                self._reopen()

    def _begin(self, event: Event) -> None:
        self._sweep = event
        self._experiment = self._find_experiment()
        self._client.set_experiment_tag(self._experiment, *view_tag(event["sweep"], event["tasks"]))
        self._find_runs()
        for task, data in event["tasks"].items():
            tags = {"task": task, "data_digest": data["digest"], "kind": "sweep"}
            self._log_config(self._run(task, f"{event['sweep']}/{task}", event, tags), task, data)

    def _log_config(self, run: str, task: str, data: Event) -> None:
        import yaml

        config: dict[str, Any] = dict(self._sweep["config"])
        logged = self._client.get_run(run).data.params
        params = flat({**config, "tasks": {task: config.get("tasks", {}).get(task)}})
        # MLflow does not let a param change, and a resumed sweep may have another value: config.yaml is rewritten.
        backbone = self._sweep["backbone"]
        sizes = {f"rows_{split}": rows for split, rows in data["rows"].items()} | {"majority": data.get("majority")}
        sizes |= {"backbone_parameters": backbone["parameters"], "backbone_bytes": backbone["bytes"]}
        sizes |= {"labels": len(data.get("labels", [])), "characters": data.get("characters")}
        if data.get("majority") is None:
            sizes |= {"baseline": data.get("baseline")}
        params |= {name: value for name, value in sizes.items() if value is not None}
        self._log(run, params={key: value for key, value in params.items() if clean(key) not in logged})
        self._client.log_text(run, yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "config.yaml")
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
        self._client.log_inputs(run, [DatasetInput(dataset, [context])])

    def _warm_start(self, event: Event) -> None:
        """Tag each task with the earlier sweeps that it was warm-started from."""
        for task in self._sweep["tasks"]:
            sources = [f"{origin['sweep']}/{origin['earlier_task']}" for origin in event["origins"]
                       if origin["task"] == task]  # fmt: skip
            self._log(self._runs[task], tags={"warm_start": ", ".join(sources) or None})

    def _trial(self, event: Event) -> None:
        key = TrialKey.parse(event["trial"])
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        tags = {"task": key.task, "method": key.method, "trial_key": str(key), "state": "running", "kind": "trial"}
        tags |= {MLFLOW_PARENT_RUN_ID: self._runs[key.task]}
        params = flat({**event["params"], "seed": event.get("seed")})
        texts = {clean(name): as_text(value) for name, value in params.items()}
        if any(texts.get(name) != value for name, value in self._params.get(str(key), {}).items()):
            self._mark_lost(str(key), event)
        run = self._run(str(key), f"{key.method}-{key.number}", event, tags)
        self._log(run, params=params)
        self._written.add(str(key))
        self._open[str(key)] = None

    def _rung(self, event: Event) -> None:
        trial, measurements = event["trial"], event.get("measurements", {})
        metrics = {**measurements, f"validation_{self._metric(trial)}": event["value"]}
        metrics |= {f"validation_{name}": value for name, value in event.get("metrics", {}).items()}
        self._measured.setdefault(trial, set()).update(measurements)
        self._log(self._runs[trial], metrics=metrics, time=event["time"], step=event["step"])
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
        self._log_metrics(self._runs[event["trial"]], points)

    def _metric(self, key: str) -> str:
        """Return the name of the metric that the search optimizes; ``value`` where the journal does not tell it."""
        name: str = self._sweep["tasks"][key.partition("/")[0]].get("metric") or "value"
        return name

    def _end(self, event: Event) -> None:
        run = self._runs[event["trial"]]
        self._log_curve(event)
        self._log(run, tags={"state": event["state"], "reason": event.get("reason") or None})
        self._client.set_terminated(run, STATUS[event["state"]], end_time=milliseconds(event))
        self._open.pop(event["trial"], None)

    def _test(self, event: Event) -> None:
        low, high = event["interval"]
        metrics = {f"test_{name}": value for name, value in event["metrics"].items()}
        metrics |= {"checkpoint_score": event["checkpoint_score"], "checkpoint_low": low, "checkpoint_high": high}
        key, measurements = TrialKey.parse(event["trial"]), event.get("measurements", {})
        if "adapter_bytes" in measurements:
            self._bytes[key.study] = measurements["adapter_bytes"]
        if (seed := event.get("seed")) is not None:
            self._log(self._runs[str(key)], {"seed_score": event["checkpoint_score"]}, time=event["time"], step=seed)
        if event["role"] == "seed":
            return
        self._log(self._runs[str(key)], metrics, tags={"role": event["role"]}, time=event["time"])
        # At the trial's last step: MLflow shows and filters by the value with the highest step. What a retraining
        # measured is not what the trial did.
        measured = self._measured.get(str(key), set())
        of_final = {f"final_{name}" if name in measured else name: value for name, value in measurements.items()}
        self._log(self._runs[str(key)], of_final, time=event["time"], step=event.get("step", 0))
        if event["role"] == "champion":
            tags = {"champion_trial": str(key), "champion_method": key.method}
            self._log(self._runs[key.task], {**metrics, **measurements}, tags=tags, time=event["time"])

    def _selection(self, event: Event) -> None:
        """Log each method's result on the run of its best trial, and the recommended one's on the parent run."""
        self._selections[event["task"]] = event
        for result in (*event["finalists"], *event["others"]):
            tags = {"tied": "true" if result["tied"] else "false", "eliminated_because": result.get("reason") or None}
            metrics = {"gap": result.get("gap"), "seeds": len(result["seed_scores"]), **_mean_score(result)}
            self._log(self._runs[result["trial"]], metrics, tags=tags, time=event["time"])
        best = next(result for result in event["finalists"] if result["method"] == event["recommended"])
        tags = {"recommended": event["recommended"], "tied_methods": ", ".join(event["tied"]), NOTE: summary(event)}
        if baselines := event.get("baselines"):
            state = state_of(is_better=not _no_better(event))
            tags |= {"selection_state": state, "baseline": baselines[0]["name"]}
        metrics = {
            "minimum_detectable_difference": event["minimum_detectable_difference"],
            "tied_count": len(event["tied"]),
        }
        if baselines:
            metrics["baseline_score"] = baselines[0]["score"]
        self._log(self._runs[event["task"]], {**metrics, **_mean_score(best)}, tags=tags, time=event["time"])

    def _registered(self, event: Event) -> None:
        """Link the runs of the task and of the registered trials with the versions in the registry."""
        name, task = event["name"], event["task"]
        methods = event.get("methods", {})
        versions: dict[str, int] = {method: version["version"] for method, version in methods.items()}
        tags: dict[str, Any] = {"registered_model": name, "registered_version": event["version"]}
        if versions:
            listed = (f"{number} ({method}, {methods[method]['alias']})" for method, number in versions.items())
            tags["registered_versions"] = ", ".join(listed)
        if (selection := self._selections.get(task)) is not None:
            links = ", ".join(f"{version_link(name, number)} ({method})" for method, number in versions.items())
            best = versions.get(selection["recommended"], int(event["version"]))
            note = champion_note(selection, name, best, self._bytes.get(f"{task}/{selection['recommended']}"))
            note += f" [Its trials by score]({view_page(self._experiment, self._sweep['sweep'])})."
            self._describe_experiment(task, note)
            parts = (note, summary(selection), f"Registered: {links or version_link(name, event['version'])}.")
            tags[NOTE] = "\n\n".join(parts)
            trials = {r["method"]: r["trial"] for r in (*selection["finalists"], *selection["others"])}
            for method, number in versions.items():
                text = f"Its method, with this configuration, is registered as {version_link(name, number)}."
                registered = {"registered_model": name, "registered_version": number, NOTE: text}
                self._log(self._runs[trials[method]], tags=registered)
        self._log(self._runs[task], tags=tags)

    def _describe_experiment(self, task: str, note: str) -> None:
        """Let the experiment's description, which lists of experiments show, begin with what was found for a task."""
        before = self._client.get_experiment(self._experiment).tags.get(NOTE, "")
        described = with_note(before, task, note)
        self._client.set_experiment_tag(self._experiment, NOTE, described)

    def _samples(self, event: Event) -> None:
        """Log samples of generated text as a table, which MLflow's evaluation view shows.

        ``log_table`` would append to the table where a journal is exported again.
        """
        methods = list(event["samples"][0]["texts"])
        lines = [
            [line["row"], line["prompt"], line["reference"], *(line["texts"].get(method) for method in methods)]
            for line in event["samples"]
        ]
        table = {"columns": ["row", "prompt", "reference", *methods], "data": lines}
        run = self._runs[event["task"]]
        self._client.log_text(run, json.dumps(table, ensure_ascii=False), SAMPLES)
        list_tables(self._client, run, [SAMPLES])

    def _close(self, event: Event) -> None:
        """End all runs; trials that a resumed sweep may continue are marked as open."""
        if CLOSED[event["reason"]] == "FINISHED":  # otherwise trials may follow, whose runs are there already
            for key in self._runs.keys() - self._written - self._sweep["tasks"].keys():
                self._mark_lost(key, event)
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

    def _mark_lost(self, key: str, event: Event) -> None:
        """Give up a run that the journal does not know: a driver was lost with the last events of its journal."""
        run = self._runs[key]
        self._log(run, tags={"key": f"lost {key}", "trial_key": f"lost {key}", "state": "lost"})
        self._client.set_terminated(run, "KILLED", end_time=milliseconds(event))
        del self._runs[key]
        self._params.pop(key, None)

    def _run(self, key: str, name: str, event: Event, tags: Mapping[str, str]) -> str:
        """Return the run of a key, running; it is created at the event's time where there is none."""
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
            "metric": self._metric(task),
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
        run_metrics = [Metric(clean(k), float(v), stamp, step) for k, v in (metrics or {}).items() if v is not None]
        run_params = [Param(clean(k), as_text(v)) for k, v in (params or {}).items()]
        run_tags = [RunTag(clean(k), as_text(v)) for k, v in (tags or {}).items() if v is not None]
        self._log_metrics(run, run_metrics)
        for first in range(0, len(run_params), MAX_PARAMS):
            self._client.log_batch(run, params=run_params[first : first + MAX_PARAMS])
        if run_tags:
            self._client.log_batch(run, tags=run_tags)

    def _log_metrics(self, run: str, metrics: Sequence[Metric]) -> None:
        for first in range(0, len(metrics), MAX_METRICS):
            self._client.log_batch(run, metrics=metrics[first : first + MAX_METRICS])

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        if (experiment := self._client.get_experiment_by_name(self._name)) is None:
            try:
                return self._client.create_experiment(self._name, artifact_location(self._uri, self._name))
            except MlflowException as error:
                if not exists_already(error):
                    raise
            experiment = self._client.get_experiment_by_name(self._name)
        return str(experiment.experiment_id) if experiment else ""

    def _find_runs(self) -> None:
        for run in self._existing_runs():
            key = run.data.tags.get("key", "")
            if run.data.tags.get("state") != "lost" and self._runs.setdefault(key, run.info.run_id) == run.info.run_id:
                self._params[key] = dict(run.data.params)

    def _existing_runs(self) -> Iterator[Run]:
        """Return all runs of this sweep, the oldest first."""
        token, order = None, ["attributes.start_time ASC"]
        while True:
            query = f"tags.sweep = '{self._sweep['sweep']}'"
            page = self._client.search_runs([self._experiment], query, order_by=order, page_token=token)
            yield from page
            if not (token := page.token):
                return


def _mean_score(result: Mapping[str, Any]) -> dict[str, float]:
    low, high = result["interval"]
    others = {
        f"{name}_{end}": value
        for name, scores in result.get("other_scores", {}).items()
        for end, value in zip(("mean", "low", "high"), scores, strict=True)
    }
    return {"mean_score": result["mean_score"], "mean_low": low, "mean_high": high, **others}


def summary(event: Event) -> str:
    """Return a selection as Markdown, which MLflow shows as the run's description."""
    level = level_text(event.get("look", 1))
    parts = [
        *_no_better(event),
        f"Recommended: **{event['recommended']}**. Reason: {event['reason'].removesuffix('.')}.",
        f"Alternative: {event['alternative'].removesuffix('.')}.",
        f"| method | mean {event['metric']} | {level} interval | seeds | result |\n| --- | ---: | --- | ---: | --- |",
    ]
    for result in (*event["finalists"], *event["others"]):
        low, high = result["interval"]
        cells = (
            result["method"], f"{result['mean_score']:.3f}", f"{low:.3f} to {high:.3f}",
            str(len(result["seed_scores"])), _verdict(event, result),
        )  # fmt: skip
        parts[-1] += f"\n| {' | '.join(cells)} |"
    difference = event["minimum_detectable_difference"]
    resolution = f"{event['rows']:,} test rows; least significant difference {difference:.3f} ({level} level)."
    return "\n\n".join([*parts, resolution, "The whole report is among the artifacts: `report.html`."])


def _no_better(event: Event) -> list[str]:
    """Return that no method was better than the best trivial predictor, if that is so."""
    baselines = event.get("baselines") or ()
    best = next(result for result in event["finalists"] if result["method"] == event["recommended"])
    lead = best.get("baseline_lead")
    if not baselines or lead is None or lead[1] > 0:
        return []
    return [f"**No method was better than {baselines[0]['name']}** ({event['metric']} {baselines[0]['score']:.3f})."]


def _verdict(event: Event, result: Mapping[str, Any]) -> str:
    if result["method"] == event["recommended"]:
        return "recommended"
    if result["tied"]:
        return "tied"
    if result.get("gap"):
        return f"at least {result['gap']:.3f} worse"
    return result.get("reason") or ""


def milliseconds(event: Event) -> int:
    """Return an event's time in milliseconds since 1970."""
    return round(float(event["time"]) * 1000)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names, without those that are not set."""
    settings: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            settings |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            settings[f"{prefix}{key}"] = value
    return settings


def clean(key: str) -> str:
    """Return a name that every MLflow store accepts."""
    return re.sub(r"[^\w.\- ]", "_", key)[:MAX_KEY_LENGTH]


def as_text(value: Any) -> str:
    """Return the value of a param or tag as text, cut at the length that MLflow accepts."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 3]}..."
