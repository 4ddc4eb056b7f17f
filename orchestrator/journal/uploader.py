"""A thread that keeps the copy of a sweep's journal in the storage up to date, and holds the sweep for its driver."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.uris import masked_first_line
from orchestrator.journal.folders import STOP
from orchestrator.journal.remote import (
    DRIVER_TIMEOUT_S,
    DriverRecord,
    Origin,
    end_record,
    read_record,
    unreachable,
    write_record,
)
from orchestrator.journal.segments import SegmentWriter

if TYPE_CHECKING:
    from orchestrator.common.storage import Storage  # imports pyarrow

log = logging.getLogger(__name__)
INTERVAL_S = 2.0
HEARTBEAT_INTERVAL_S = DRIVER_TIMEOUT_S / 6


class JournalUploader:
    """Uploads a journal every few seconds, and at once where an event must not be lost; the sweep never waits for it.

    Args:
        journal: the sweep's journal on this machine, whose folder is locked.
        storage: storage of the sweep's folder, without retries: the thread itself tries again.
        limit_s: seconds for which the storage may be away.
    """

    def __init__(self, journal: Path, storage: Storage, *, limit_s: float) -> None:
        self._journal, self._storage, self._limit_s = journal, storage, limit_s
        self._record = DriverRecord.new()
        self._segments = SegmentWriter(journal, storage, self._record.folder)
        self._changed, self._wake = threading.Condition(), threading.Event()
        self._closing, self._taken = False, ""
        self._heartbeat_at = 0.0
        self._failing_since: float | None = None
        self._last_error = ""
        self._thread = threading.Thread(target=self._follow, name="journal-uploader", daemon=True)

    def start(self) -> None:
        """Take the sweep, with all that its journal has so far, and start the thread.

        Raises:
            InputError: if the storage cannot be written, or another driver has taken the sweep since it was opened.
        """
        folder = self._journal.parent
        before, origin = read_record(self._storage), Origin.of(folder)
        if before and (origin is None or origin.id != before.id):
            message = f"was taken by another driver ({before}) meanwhile"
            raise InputError(folder.name, [Problem("", message)], "add --storage, its storage, to continue from there")
        try:
            self._segments.write()
            write_record(self._storage, self._record)
            self._storage.delete(STOP)  # asked of a driver that has ended
        except (OSError, ValueError) as error:
            raise unreachable(self._storage, error) from error
        Origin(self._record.id, is_copy=False).write(folder)
        self._heartbeat_at = time.monotonic()
        self._former = before.folder if before else ""
        self._thread.start()

    @property
    def uploaded(self) -> int:
        """Position in the journal, in bytes, up to which it is in the storage and counts; 0 once it is another's."""
        return 0 if self._taken else self._segments.end

    def wake(self) -> None:
        """Upload what is new at once."""
        self._wake.set()

    def fault(self) -> str:
        """Return why the sweep cannot go on; empty while it can."""
        if self._taken:
            return self._taken
        since = self._failing_since
        if since is None or (seconds := time.monotonic() - since) < self._limit_s:
            return ""
        return f"the journal could not be copied to the storage for {seconds:.0f} s: {self._last_error}"

    def flush(self, timeout: float) -> bool:
        """Wait until everything that is in the journal now is in the storage; return whether it is.

        Args:
            timeout: maximum number of seconds to wait.
        """
        target = self._journal.stat().st_size
        self._wake.set()
        with self._changed:
            self._changed.wait_for(lambda: self._is_over() or self.uploaded >= target, timeout)
        return self.uploaded >= target and not self._taken

    def close(self, timeout: float) -> bool:
        """Upload what is left, let go of the sweep, and end the thread; return whether everything was uploaded.

        Args:
            timeout: maximum number of seconds to wait.
        """
        if not self._thread.ident:
            return False
        uploaded = self.flush(timeout)
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        if not uploaded and not self._taken:
            log.warning("the end of the journal is on this machine alone: %s", self._last_error or "no time was left")
        return uploaded

    def _is_over(self) -> bool:
        return bool(self._taken) or not self._thread.is_alive()

    def _follow(self) -> None:
        pause = INTERVAL_S
        while not (self._taken or self._closing):
            self._wake.wait(pause)
            self._wake.clear()
            try:
                self._step()
                pause, self._failing_since, self._last_error = INTERVAL_S, None, ""
            except Exception as error:
                self._last_error = masked_first_line(error)
                if self._failing_since is None:
                    self._failing_since = time.monotonic()
                    log.warning("the journal cannot be copied to the storage now: %s", self._last_error)
                pause = min(2 * pause, HEARTBEAT_INTERVAL_S)
                self._wake.clear()
            with self._changed:
                self._changed.notify_all()
        self._let_go()

    def _step(self) -> None:
        if self._former:
            self._storage.delete(self._former)
            self._former = ""
        self._segments.write()
        if time.monotonic() - self._heartbeat_at >= HEARTBEAT_INTERVAL_S:
            self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        """Write the record again, unless it has become another driver's."""
        holder = read_record(self._storage)
        if holder and holder.id != self._record.id:
            self._taken = f"another driver ({holder}) has taken the sweep over"
            return
        write_record(self._storage, self._record)
        self._heartbeat_at = time.monotonic()
        if self._storage.exists(STOP):
            self._storage.delete(STOP)
            (self._journal.parent / STOP).touch()

    def _let_go(self) -> None:
        if not self._taken:
            try:
                end_record(self._storage, self._record)
            except Exception as error:
                log.warning("the storage still names this driver as the sweep's: %s", masked_first_line(error))
