"""What follows a sweep's journal in threads of its own: its copy in the storage, MLflow, and the deletion of files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.common.storage import Storage
from orchestrator.sweep.checkpoint_cleaner import CheckpointCleaner

if TYPE_CHECKING:
    from orchestrator.config.sections import SweepConfig
    from orchestrator.journal.events import Journal
    from orchestrator.journal.uploader import JournalUploader

log = logging.getLogger(__name__)
EXPORT_TIMEOUT_S = 120.0
UPLOAD_TIMEOUT_S = 20.0
STORAGE_LIMIT_S = 300.0
"""Seconds that a sweep waits for a storage that cannot be reached, before it stops."""


class JournalFollowers:
    """Follow the journal of one attempt, and write the report at its end.

    Args:
        journal: the journal.
        config: configuration of the sweep.
        storage: the sweep's folder in the storage, without retries: the threads try again themselves.
    """

    def __init__(self, journal: Journal, config: SweepConfig, storage: Storage) -> None:
        from orchestrator.journal.uploader import JournalUploader
        from orchestrator.tracking.mlflow_exporter import MlflowExporter

        self._journal, self._storage = journal, storage
        self._tracking_uri = config.mlflow.tracking_uri
        self.uploader: JournalUploader | None = None
        """Copies the journal to a storage that is not local."""
        if not storage.is_local:
            self.uploader = JournalUploader(journal.path, storage, limit_s=STORAGE_LIMIT_S)
        self.exporter = MlflowExporter(
            journal.path, tracking_uri=self._tracking_uri, experiment=config.mlflow.experiment or config.name
        )
        """Writes MLflow's runs."""
        self._cleaner = CheckpointCleaner(
            journal.path, storage, lambda: self.uploader.uploaded if self.uploader else journal.sync()
        )
        self._exporter_closed = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the threads; at the end, let each come to the journal's end, and write the report."""
        with ExitStack() as stack:
            if self.uploader:
                self.uploader.start()
                stack.callback(self._close_uploader, self.uploader)
            self._cleaner.start()
            stack.callback(self._close_cleaner)
            stack.callback(self._write_report)
            stack.callback(self.close_exporter)
            self.exporter.start()
            yield

    def wake(self) -> None:
        """Tell that the journal has an event that cannot be lost any more."""
        if self.uploader:
            self.uploader.wake()

    def fault(self) -> str:
        """Return why the copy of the journal cannot go on; empty while it can."""
        return self.uploader.fault() if self.uploader else ""

    def flush(self) -> None:
        """Wait until the storage has all events, so that no driver elsewhere can come to another result."""
        if self.uploader:
            self.uploader.flush(UPLOAD_TIMEOUT_S)

    def close_exporter(self) -> None:
        """Close the exporter once, however the sweep ends."""
        if not self._exporter_closed:
            self._exporter_closed = True
            self.exporter.close(EXPORT_TIMEOUT_S)

    def _close_cleaner(self) -> None:
        """Delete what the end of the journal has made unneeded."""
        self.flush()
        self._cleaner.close(UPLOAD_TIMEOUT_S)

    def _close_uploader(self, uploader: JournalUploader) -> None:
        """Bring the copy in the storage up to date, with Optuna's file, which reports elsewhere read."""
        from orchestrator.journal.remote import OPTUNA_FILE

        if (self._folder / OPTUNA_FILE).exists() and not uploader.fault():
            try:
                self._storage.upload(self._folder / OPTUNA_FILE, OPTUNA_FILE)
            except OSError as error:
                log.warning("%s was not copied to the storage: %s", OPTUNA_FILE, error)
        uploader.close(UPLOAD_TIMEOUT_S)

    def _write_report(self) -> None:
        """Write the report, however the sweep ended, and log it to MLflow if that has all events of the journal."""
        from orchestrator.report.ending import report_at_end

        report_at_end(self._folder, tracking_uri=None if self.exporter.pending else self._tracking_uri)

    @property
    def _folder(self) -> Path:
        return self._journal.path.parent
