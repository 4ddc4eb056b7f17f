"""What must hold of a sweep that was disturbed."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
from mlflow import MlflowClient

from benchmarks._chaos_sweep import ChaosSweep
from tests.polling import until
from tests.small_sweep import mlflow_runs

TOLERANCE = 1e-6
LEFT_TIMEOUT_S = 5.0
SHARED_MEMORY = Path("/dev/shm")
LOGGED = "validation_accuracy"
"""The metric of the sweep's task, as MLflow has it."""


@dataclass(frozen=True)
class Result:
    """What a sweep came to.

    Args:
        events: events of its journal.
        runs: number of MLflow runs of each trial.
        versions: number of registered versions of each method.
        states: number of MLflow runs in each state, those of tasks included.
        logged: number of times that MLflow has a value of a trial at a step.
    """

    events: list[dict[str, Any]]
    runs: Counter[str]
    versions: Counter[str]
    states: Counter[str] = field(default_factory=Counter)
    logged: Counter[tuple[str, int, float]] = field(default_factory=Counter)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind."""
        return [event for event in self.events if event["event"] == kind]

    @property
    def values(self) -> dict[tuple[str, int], float]:
        """The values of trials at rungs."""
        return {(event["trial"], event["step"]): event["value"] for event in self.of_kind("rung")}

    @property
    def recommended(self) -> list[str]:
        """The recommended method of each task."""
        return [event["recommended"] for event in self.of_kind("selection")]


def result_of(sweep: ChaosSweep) -> Result:
    """Return what a sweep came to, from its journal and from MLflow."""
    client, runs = MlflowClient(sweep.tracking_uri), mlflow_runs(sweep.tracking_uri)
    methods = Counter(version.tags.get("method", "") for version in client.search_model_versions())
    trials = {run.info.run_id: run.data.tags["trial_key"] for run in runs if "trial_key" in run.data.tags}
    logged = [
        (trial, metric.step, metric.value)
        for run, trial in trials.items()
        for metric in client.get_metric_history(run, LOGGED)
    ]
    states = Counter(run.info.status for run in runs)
    return Result(sweep.events(), Counter(trials.values()), methods, states, Counter(logged))


def problems(result: Result, undisturbed: Result) -> list[str]:
    """Return what a fault has changed."""
    trials = Counter(event["trial"] for event in result.of_kind("trial"))
    ends = Counter(event["trial"] for event in result.of_kind("end"))
    states = Counter(event["state"] for event in result.of_kind("end"))
    rungs = Counter((event["trial"], event["step"]) for event in result.of_kind("rung"))
    found = {
        "a trial began twice, or did not end once": trials != ends or max(trials.values(), default=0) > 1,
        "a trial reported a rung twice": max(rungs.values(), default=0) > 1,
        f"trials ended as {dict(states)}": set(states) != {"complete"},
        "other values": not _equal(result.values, undisturbed.values),
        f"recommends {result.recommended}": result.recommended != undisturbed.recommended,
        f"MLflow has {dict(result.runs)}": result.runs != undisturbed.runs,
        f"registered {dict(result.versions)}": result.versions != undisturbed.versions,
        f"MLflow's runs are {dict(result.states)}": result.states != undisturbed.states,
        "MLflow has other values than the journal": result.logged
        != Counter((trial, step, value) for (trial, step), value in result.values.items()),
    }
    return [text for text, is_so in found.items() if is_so]


def _equal(values: dict[tuple[str, int], float], others: dict[tuple[str, int], float]) -> bool:
    return values.keys() == others.keys() and all(abs(values[key] - others[key]) <= TOLERANCE for key in values)


@dataclass(frozen=True)
class Left:
    """The shared memory before a sweep."""

    shared: frozenset[str]

    @classmethod
    def now(cls) -> Self:
        """Look at what is there."""
        return cls(_shared_memory())

    def problems(self, folder: Path) -> list[str]:
        """Return what a sweep in this folder has left behind after five seconds."""
        with suppress(AssertionError):
            until(lambda: not _processes_of(folder) and not self._added(), LEFT_TIMEOUT_S)
        processes = [f"process {process.pid} {process.name()}" for process in _processes_of(folder)]
        return [f"left behind: {what}" for what in [*processes, *sorted(self._added())]]

    def _added(self) -> frozenset[str]:
        return _shared_memory() - self.shared - _mapped()


def _shared_memory() -> frozenset[str]:
    return frozenset(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else frozenset()


def _mapped() -> frozenset[str]:
    """Return the shared memory that living processes map: other programs make some as well."""
    found: set[str] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            paths = {mapping.path for mapping in process.memory_maps()} | {file.path for file in process.open_files()}
            found |= {Path(path).name for path in paths if path.startswith(f"{SHARED_MEMORY}/")}
    return frozenset(found)


def _processes_of(folder: Path) -> list[psutil.Process]:
    """Return the living processes that have inherited the environment of the sweep in a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_of_sweep = process.environ().get("PEFT_SWEEP_CACHE") == str(folder / "cache")
            found += [process] if is_of_sweep and process.status() != psutil.STATUS_ZOMBIE else []
    return found
