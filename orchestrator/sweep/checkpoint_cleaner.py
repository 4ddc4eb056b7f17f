"""A thread that deletes checkpoints which are not needed any more, once the journal cannot be lost any more."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from orchestrator.common.storage import Storage
from orchestrator.common.uris import masked_first_line
from orchestrator.journal.events import read_from
from orchestrator.sweep.unneeded_checkpoints import UnneededCheckpoints

log = logging.getLogger(__name__)
INTERVAL_S = 2.0


class CheckpointCleaner:
    """Deletes checkpoints while the sweep goes on, which never waits for it. What fails is tried again.

    Args:
        journal: the sweep's journal on this machine.
        storage: storage of the sweep's folder.
        durable: function that returns the position in the journal, in bytes, up to which it cannot be lost.
    """

    def __init__(self, journal: Path, storage: Storage, durable: Callable[[], int]) -> None:
        self._journal, self._storage, self._durable = journal, storage, durable
        self._unneeded, self._pending = UnneededCheckpoints(), deque[str]()
        self._offset, self._is_first, self._failed = 0, True, False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="checkpoint-cleaner", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Delete what the journal has made unneeded by now, and end the thread.

        Args:
            timeout: maximum number of seconds to wait.
        """
        self._closing.set()
        self._thread.join(timeout)

    def _follow(self) -> None:
        while True:
            is_last = self._closing.wait(INTERVAL_S)
            try:
                self.clean()
                self._failed = False
            except Exception as error:
                if not self._failed:
                    log.warning("checkpoints cannot be deleted now: %s", masked_first_line(error))
                self._failed = True
            if is_last:
                return

    def clean(self) -> None:
        """Delete what is not needed after the events that cannot be lost.

        Raises:
            OSError: if the storage cannot be reached; call it again.
        """
        events, self._offset = read_from(self._journal, self._offset, self._durable())
        folders = [folder for event in events for folder in self._unneeded.after(event)]
        if folders and self._is_first:  # a resumed sweep has deleted most of them before
            files = [f"checkpoints/{file}" for file in self._storage.files("checkpoints")]
            existing = {parent for file in files for parent in map(str, Path(file).parents)}
            folders = [folder for folder in folders if folder in existing]
        self._is_first = False
        self._pending.extend(folders)
        while self._pending:
            self._storage.delete(self._pending[0])
            self._pending.popleft()
