"""Optuna's file of a sweep: the same studies and trials for Optuna's own tools, such as its dashboard.

A sweep never reads this file. The source of truth is the sweep's journal, which has every event before this file does,
and a resumed sweep writes the file anew from the journal; so the file may lag behind. It is written in batches at least
a second apart, and whenever no trial is open: Optuna itself would sync every parameter and every value to the disk,
some twenty times per trial. After a driver was killed, the file is readable and at most a second old.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from orchestrator.common.trial_types import Ending

log = logging.getLogger(__name__)
METRIC_NAMES = "study:metric_names"
"""Attribute in which Optuna keeps the names of a study's objectives."""
BATCH_INTERVAL_S = 1.0
"""Smallest number of seconds between two batches."""
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


def open_storage(path: Path | None) -> OptunaFile:
    """Start Optuna's file of a sweep anew; with ``None`` nothing is written."""
    return OptunaFile(path)


class OptunaFile:
    """Writes studies and trials; for one process at a time.

    Args:
        path: The file, which is written anew; with ``None`` nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line per trial would bury the sweep's own lines
        self._batches = _Batches(path) if path else None
        self._storage = JournalStorage(self._batches) if self._batches else None
        self._studies: dict[str, int] = {}
        self._open: dict[tuple[str, int], int] = {}
        if self._batches:
            weakref.finalize(self, self._batches.write)

    def create(self, study: str, *, higher_is_better: bool, metric: str = "") -> None:
        """Add a study.

        Args:
            study: ``task/method``.
            higher_is_better: The direction of the metric.
            metric: The name of the metric, which Optuna's tools show for the objective.
        """
        if self._storage:
            direction = StudyDirection.MAXIMIZE if higher_is_better else StudyDirection.MINIMIZE
            number = self._studies[study] = self._storage.create_new_study([direction], study)
            task, _, method = study.partition("/")
            for name, value in {"task": task, "method": method, "metric": metric}.items():
                self._storage.set_study_user_attr(number, name, value)
            if metric:  # what Study.set_metric_names writes, which warns that it is experimental
                self._storage.set_study_system_attr(number, METRIC_NAMES, [metric])
            self.flush()

    def start(
        self,
        study: str,
        number: int,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        constraints: Mapping[str, float],
    ) -> None:
        """Add a trial; numbers count from 0 without a gap."""
        if self._storage:
            trial = create_trial(
                state=TrialState.RUNNING,
                params=dict(params),
                distributions=dict(distributions),
                constraints=dict(constraints),
            )
            self._open[study, number] = self._storage.create_new_trial(self._studies[study], trial)

    def report(self, study: str, number: int, rung: int, value: float) -> None:
        """Record a running trial's value at a rung."""
        if self._storage:
            self._storage.set_trial_intermediate_value(self._open[study, number], rung, value)
            self._write_if_due()

    def end(self, study: str, number: int, state: Ending, value: float, reason: str) -> None:
        """End a trial. Only a complete one has a value; a killed one, which Optuna calls failed, keeps its reason."""
        if self._storage:
            trial = self._open.pop((study, number))
            if state == "killed":
                self._storage.set_trial_user_attr(trial, "killed", reason)
            values: Sequence[float] | None = [value] if state == "complete" else None
            self._storage.set_trial_state_values(trial, _STATES.get(state, TrialState.FAIL), values)
            self._write_if_due()

    def flush(self) -> None:
        """Write everything to the file."""
        if self._batches:
            self._batches.write()

    def _write_if_due(self) -> None:
        if self._batches and (not self._open or self._batches.age >= BATCH_INTERVAL_S):
            self._batches.write()


class _Batches(BaseJournalBackend):
    """A journal that collects lines and writes them to its file in batches.

    Args:
        path: The journal's file, which is written anew.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, _empty_file(path)
        self._failed = False
        self._waiting: list[dict[str, Any]] = []
        self._last: list[dict[str, Any]] = []
        self._count = 0
        self._written_at = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the last batch."""
        return time.monotonic() - self._written_at

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines to the next batch."""
        self._waiting += logs
        self._last = logs
        self._count += len(logs)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the lines from a number on: a single writer only reads back the lines that it appended last."""
        return self._last[len(self._last) - (self._count - log_number_from) :]

    def write(self) -> None:
        """Append the batch to the file. One that cannot be written is removed: part of a line is no use to anybody."""
        waiting, self._waiting = self._waiting, []
        self._written_at = time.monotonic()
        if waiting and not self._failed:
            try:
                self._file.append_logs(waiting)
            except OSError as error:
                self._failed = True
                log.warning("%s is not written any more: %s", self._path, error.strerror or error)
                _remove(self._path)


def _remove(path: Path) -> None:
    """Remove Optuna's file, and the lock that a killed writer leaves."""
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".lock").unlink(missing_ok=True)


def _empty_file(path: Path) -> JournalFileBackend:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(path)
    return JournalFileBackend(str(path))
