"""The events of a sweep's final as MLflow runs: test scores, the selection, samples, and links to the registry."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from orchestrator.common.trial_types import TrialKey
from orchestrator.journal.events import Event
from orchestrator.selection.selection import Selection
from orchestrator.tracking.champion_note import champion_note, with_note
from orchestrator.tracking.run_store import RunStore
from orchestrator.tracking.runs_view import view_page
from orchestrator.tracking.selection_note import method_metrics, summary, task_metrics
from orchestrator.tracking.tables import list_tables
from orchestrator.tracking.versions import version_link

NOTE = "mlflow.note.content"
SAMPLES = "samples.json"


class FinalRuns:
    """Writes the events of a final.

    Args:
        store: the runs of the sweep.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._selections: dict[str, Event] = {}

    def test(self, event: Event, measured: Collection[str]) -> None:
        """Log a finalist's scores on the test split.

        Args:
            event: the event.
            measured: names of what the search has measured of the trial.
        """
        low, high = event["interval"]
        metrics = {f"test_{name}": value for name, value in event["metrics"].items()}
        metrics |= {"checkpoint_score": event["checkpoint_score"], "checkpoint_low": low, "checkpoint_high": high}
        key, measurements = TrialKey.parse(event["trial"]), event.get("measurements", {})
        if (seed := event.get("seed")) is not None:
            score = {"seed_score": event["checkpoint_score"]}
            self._store.log(self._store.ids[str(key)], score, time=event["time"], step=seed)
        if event["role"] == "seed":
            return
        self._store.log(self._store.ids[str(key)], metrics, tags={"role": event["role"]}, time=event["time"])
        # At the trial's last step: MLflow shows and filters by the value with the highest step. What a retraining
        # measured is not what the trial did.
        of_final = {f"final_{name}" if name in measured else name: value for name, value in measurements.items()}
        self._store.log(self._store.ids[str(key)], of_final, time=event["time"], step=event.get("step", 0))
        if event["role"] == "champion":
            tags = {"champion_trial": str(key), "champion_method": key.method}
            self._store.log(self._store.ids[key.task], metrics, tags=tags, time=event["time"])

    def selection(self, event: Event) -> None:
        """Log each method's result on the run of its best trial, and the recommended one's on the parent run."""
        self._selections[event["task"]] = event
        selection = Selection.from_dict(event)
        for result in selection.scored:
            tags = {"tied": "true" if result.tied else "false", "eliminated_because": result.reason or None}
            metrics = {"gap": result.gap, **method_metrics(result)}
            self._store.log(self._store.ids[result.trial], metrics, tags=tags, time=event["time"])
        tags = {
            "recommended": selection.recommended,
            "tied_methods": ", ".join(selection.tied),
            "named_methods": ", ".join(selection.named),
            NOTE: summary(event),
        }
        if selection.baseline is not None:
            tags |= {"selection_state": selection.state, "baseline": selection.baseline.name}
        self._store.log(self._store.ids[selection.task], task_metrics(selection), tags=tags, time=event["time"])

    def overall(self, event: Event) -> None:
        """Tag the run of each task with the one method for all tasks of the sweep, and why."""
        if event["recommended"]:
            tags = {"recommended_for_all_tasks": event["recommended"], "reason_for_all_tasks": event["reason"]}
            for task in event["per_task"]:
                self._store.log(self._store.ids[task], tags=tags)

    def registered(self, event: Event) -> None:
        """Link the runs of the task and of the registered trials with the versions in the registry."""
        name, task = event["name"], event["task"]
        methods = event.get("methods", {})
        versions: dict[str, int] = {method: version["version"] for method, version in methods.items()}
        tags: dict[str, Any] = {"registered_model": name, "registered_version": event["version"]}
        if versions:
            listed = (
                f"{number} ({', '.join(filter(None, (method, methods[method]['alias'])))})"
                for method, number in versions.items()
            )
            tags["registered_versions"] = ", ".join(listed)
        if (selection := self._selections.get(task)) is not None:
            links = ", ".join(f"{version_link(name, number)} ({method})" for method, number in versions.items())
            best = versions.get(selection["recommended"], int(event["version"]))
            note = champion_note(selection, name, best)
            note += f" [Its trials by score]({view_page(self._store.experiment_id, self._store.sweep['sweep'])})."
            self._describe_experiment(task, note)
            parts = (note, summary(selection), f"Registered: {links or version_link(name, event['version'])}.")
            tags[NOTE] = "\n\n".join(parts)
            trials = {r["method"]: r["trial"] for r in (*selection["finalists"], *selection["others"])}
            for method, number in versions.items():
                text = f"Its method, with this configuration, is registered as {version_link(name, number)}."
                registered = {"registered_model": name, "registered_version": number, NOTE: text}
                self._store.log(self._store.ids[trials[method]], tags=registered)
        self._store.log(self._store.ids[task], tags=tags)

    def samples(self, event: Event) -> None:
        """Log samples of generated text as a table, which MLflow's evaluation view shows.

        ``log_table`` would append to the table where a journal is exported again.
        """
        methods = list(event["samples"][0]["texts"])
        lines = [
            [line["row"], line["prompt"], line["reference"], *(line["texts"].get(method) for method in methods)]
            for line in event["samples"]
        ]
        table = {"columns": ["row", "prompt", "reference", *methods], "data": lines}
        run = self._store.ids[event["task"]]
        self._store.client.log_text(run, json.dumps(table, ensure_ascii=False), SAMPLES)
        list_tables(self._store.client, run, [SAMPLES])

    def _describe_experiment(self, task: str, note: str) -> None:
        """Let the experiment's description, which lists of experiments show, begin with what was found for a task."""
        before = self._store.client.get_experiment(self._store.experiment_id).tags.get(NOTE, "")
        described = with_note(before, task, note)
        self._store.client.set_experiment_tag(self._store.experiment_id, NOTE, described)
