"""Optuna's file of a sweep: the same studies and trials for whoever looks at them with Optuna's own tools.

Nothing in a sweep reads it. The truth is the sweep's journal, which has every event before this file does, and a
sweep that is resumed writes the file anew from there; so it may lag behind. It is written in batches, a second apart
at least, and whenever no trial is open: Optuna would sync every parameter and every value to the disk by itself, some
twenty times a trial. What a killed driver leaves is readable, and a second old.
"""

from __future__ import annotations

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

INTERVAL = 1.0
"""Seconds between two batches, at least."""
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


def open_storage(path: Path | None) -> OptunaFile:
    """Begin Optuna's file of a sweep; ``None`` writes nothing."""
    return OptunaFile(path)


class OptunaFile:
    """Writes studies and trials, one process at a time.

    Args:
        path: is written anew; ``None`` writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line per trial would bury the sweep's own
        self._batches = _Batches(_fresh(path)) if path else None
        self._storage = JournalStorage(self._batches) if self._batches else None
        self._studies: dict[str, int] = {}
        self._open: dict[tuple[str, int], int] = {}
        if self._batches:
            weakref.finalize(self, self._batches.write)

    def create(self, study: str, *, higher_is_better: bool) -> None:
        """Begin a study."""
        if self._storage:
            direction = StudyDirection.MAXIMIZE if higher_is_better else StudyDirection.MINIMIZE
            self._studies[study] = self._storage.create_new_study([direction], study)
            self.flush()

    def start(
        self,
        study: str,
        number: int,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        constraints: Mapping[str, float],
    ) -> None:
        """Begin a trial; numbers count from 0 and none is left out."""
        if self._storage:
            trial = create_trial(
                state=TrialState.RUNNING,
                params=dict(params),
                distributions=dict(distributions),
                constraints=dict(constraints),
            )
            self._open[study, number] = self._storage.create_new_trial(self._studies[study], trial)

    def report(self, study: str, number: int, rung: int, value: float) -> None:
        """A running trial's value at a rung."""
        if self._storage:
            self._storage.set_trial_intermediate_value(self._open[study, number], rung, value)
            self._write_now_and_then()

    def end(self, study: str, number: int, state: Ending, value: float, reason: str) -> None:
        """End a trial. Only a complete one has a value; killed ones keep why, since Optuna calls them failed."""
        if self._storage:
            trial = self._open.pop((study, number))
            if state == "killed":
                self._storage.set_trial_user_attr(trial, "killed", reason)
            values: Sequence[float] | None = [value] if state == "complete" else None
            self._storage.set_trial_state_values(trial, _STATES.get(state, TrialState.FAIL), values)
            self._write_now_and_then()

    def flush(self) -> None:
        """Write what there is."""
        if self._batches:
            self._batches.write()

    def _write_now_and_then(self) -> None:
        if self._batches and (not self._open or self._batches.age >= INTERVAL):
            self._batches.write()


class _Batches(BaseJournalBackend):
    """A journal whose lines reach their file later than whoever reads them here.

    Args:
        file: where they go.
    """

    def __init__(self, file: JournalFileBackend) -> None:
        self._file = file
        self._waiting: list[dict[str, Any]] = []
        self._last: list[dict[str, Any]] = []
        self._count = 0
        self._written = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the last batch."""
        return time.monotonic() - self._written

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Take lines; what they say now is what will be written."""
        self._waiting += logs
        self._last = logs
        self._count += len(logs)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The lines from a number on. Whoever writes alone asks for none but the last."""
        return self._last[len(self._last) - (self._count - log_number_from) :]

    def write(self) -> None:
        """Append what waits to the file."""
        if self._waiting:
            self._file.append_logs(self._waiting)
            self._waiting = []
        self._written = time.monotonic()


def _fresh(path: Path) -> JournalFileBackend:
    """An empty file; with the one before it goes the lock that a killed writer leaves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    return JournalFileBackend(str(path))
