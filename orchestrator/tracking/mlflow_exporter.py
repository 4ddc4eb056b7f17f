"""A thread that follows the sweep journal and writes MLflow runs; the sweep itself never waits for a server.

The journal is the queue. An event counts as written when MLflow has accepted it; until then it is retried, so that a
server that cannot be reached for minutes, or for the rest of the sweep, costs nothing but delay. An exporter that is
started on the journal of an earlier process starts at its beginning and writes what is missing.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from orchestrator.common.errors import SweepError
from orchestrator.common.uris import masked_first_line
from orchestrator.journal.events import read_from
from orchestrator.tracking.connection import is_refusal

log = logging.getLogger(__name__)


class Writer(Protocol):
    """The target of the exporter; :class:`orchestrator.tracking.runs.RunWriter`."""

    def write(self, event: dict[str, Any]) -> None:
        """Write one event, which may have been written before."""

    def recall(self) -> None:
        """Read the existing runs again, after a failure."""

    def run_id(self, key: str) -> str | None:
        """Return the run of a task or a trial."""

    @property
    def experiment_id(self) -> str:
        """Id of the experiment; empty before it is known."""


class MlflowExporter:
    """Exports one journal to MLflow.

    Args:
        journal: the sweep's journal; it need not exist yet.
        tracking_uri: MLflow's tracking URI.
        experiment: name of the experiment.
        poll: seconds between two reads of the journal.
        longest_pause: maximum number of seconds between two attempts while the server cannot be reached.
        writer: factory of the target; called in the thread, since importing MLflow takes seconds.
    """

    def __init__(
        self,
        journal: Path,
        tracking_uri: str,
        experiment: str,
        *,
        poll: float = 0.5,
        longest_pause: float = 5.0,
        writer: Callable[[], Writer] | None = None,
    ) -> None:
        self._journal, self._poll, self._longest_pause = journal, poll, longest_pause
        self._make_writer = writer or (lambda: _run_writer(tracking_uri, experiment))
        self._writer: Writer | None = None
        self._pending: deque[dict[str, Any]] = deque()
        self._offset = 0
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._stopped = False
        self._failures = 0
        self.last_error = ""
        """Why the last write failed, one line; empty after a success."""
        self.refused = 0
        """Events that MLflow refused for good; their errors are in the log."""
        self._thread = threading.Thread(target=self._follow, name="mlflow-exporter", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def pending(self) -> int:
        """Number of events in the journal that are not written yet."""
        with self._changed:
            return len(self._pending) + _whole_lines(self._journal, self._offset)

    def flush(self, timeout: float) -> bool:
        """Wait until all events so far are written; return whether they are.

        Args:
            timeout: maximum number of seconds to wait.
        """
        target = self._journal.stat().st_size if self._journal.exists() else 0
        self._wake.set()
        with self._changed:
            done = self._changed.wait_for(lambda: self._written(target) or not self._thread.is_alive(), timeout)
            return done and self._written(target)

    def close(self, timeout: float) -> bool:
        """Write what is pending and end the thread; return whether everything was written.

        What is not written in time stays in the journal.

        Args:
            timeout: maximum number of seconds to wait.
        """
        if not self._thread.ident:
            return self.pending == 0
        written = self.flush(timeout)
        self._stopped = True
        self._wake.set()
        if written:
            self._thread.join(timeout)
        return written

    def run_id(self, trial: str) -> str | None:
        """Return the run of a trial; ``None`` where it is not written yet."""
        return self._writer.run_id(trial) if self._writer else None

    @property
    def experiment_id(self) -> str:
        """Id of the experiment; empty before anything is written."""
        return self._writer.experiment_id if self._writer else ""

    def parent_run_id(self, task: str, timeout: float = 300) -> str:
        """Wait for the parent run of a task's trials, and return it.

        Raises:
            SweepError: if it does not exist in time.
        """
        self._wake.set()
        with self._changed:
            self._changed.wait_for(lambda: self.run_id(task) or not self._thread.is_alive(), timeout)
            if run := self.run_id(task):
                return run
        raise SweepError(f"MLflow has no run of {task}: {self.last_error or f'nothing was written in {timeout:g} s'}")

    def _written(self, target: int) -> bool:
        return self._offset >= target and not self._pending

    def _follow(self) -> None:
        try:
            while not self._stopped:
                self._step()
        except SweepError as error:
            self.last_error = str(error)
            log.exception("the journal cannot be exported")
        finally:
            with self._changed:
                self._changed.notify_all()

    def _step(self) -> None:
        """Write the next event, or wait for the journal to grow."""
        if not self._pending:
            self._read()
        if not self._pending:
            self._rest(self._poll)
            return
        try:
            self._write(self._pending[0])
        except Exception as error:
            self._note(error)
            return
        if self._failures:
            log.warning("MLflow takes events again")
        with self._changed:
            self._pending.popleft()
            self._failures, self.last_error = 0, ""
            self._changed.notify_all()

    def _read(self) -> None:
        events, offset = read_from(self._journal, self._offset)
        with self._changed:
            self._pending.extend(events)
            self._offset = offset
            self._changed.notify_all()

    def _write(self, event: dict[str, Any]) -> None:
        self._writer = self._writer or self._make_writer()
        if self._failures:
            self._writer.recall()
        try:
            self._writer.write(event)
        except Exception as error:
            if not (is_refusal(error) or isinstance(error, KeyError | TypeError)):
                raise
            # A retry cannot succeed, and all later events would wait for it.
            self.refused += 1
            log.exception("MLflow refused the event %s", event)

    def _note(self, error: Exception) -> None:
        if not self._failures:
            log.warning("MLflow cannot be reached; its events wait in the journal: %s", masked_first_line(error))
        self._failures += 1
        self.last_error = masked_first_line(error)
        self._rest(min(self._poll * 2 ** min(self._failures, 10), self._longest_pause))

    def _rest(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()


def _run_writer(tracking_uri: str, experiment: str) -> Writer:
    from orchestrator.tracking.runs import RunWriter

    return RunWriter(tracking_uri, experiment)


def _whole_lines(path: Path, offset: int) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().count(b"\n")
