"""Try requests to a storage again while it cannot be reached."""

from __future__ import annotations

import errno
import logging
import random
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator.common.errors import SweepError
from orchestrator.common.uris import masked_first_line

T = TypeVar("T")
log = logging.getLogger(__name__)
_FINAL = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""Errors that say what is in the storage, and not that it cannot be reached."""
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how libraries written in Rust name an error of the system


class StorageError(SweepError):
    """The storage could not be reached for as long as it was tried."""


class Retry:
    """How long a request is tried again, with growing pauses in which nothing else happens in the thread.

    Args:
        limit_s: seconds from the first failure to the last attempt.
        first_pause_s: seconds before the second attempt; each pause is up to twice as long as the one before.
        longest_pause_s: upper bound of a pause, in seconds.
    """

    def __init__(self, limit_s: float = 300.0, first_pause_s: float = 0.5, longest_pause_s: float = 30.0) -> None:
        self.limit_s, self.first_pause_s, self.longest_pause_s = limit_s, first_pause_s, longest_pause_s
        self._cancelled = threading.Event()

    def __reduce__(self) -> tuple[type[Retry], tuple[float, float, float]]:
        return Retry, (self.limit_s, self.first_pause_s, self.longest_pause_s)

    def run(self, request: Callable[[], T], place: str) -> T:
        """Return the result of a request, which is repeated while it raises an ``OSError``.

        Args:
            request: function that may be called any number of times.
            place: what it reaches, for messages.

        Raises:
            StorageError: if it has failed for ``limit_s``, or was cancelled meanwhile.
            OSError: if the storage answers that there is no such file, or that it is of another kind.
        """
        pause, began = self.first_pause_s, 0.0
        while True:
            try:
                result = request()
                if began:
                    log.warning("%s is reached again", place)
                return result
            except _FINAL:
                raise
            except OSError as error:
                reason = masked_first_line(error)
                if not began:
                    began = time.monotonic()
                    log.warning("%s cannot be reached, trying for %g s: %s", place, self.limit_s, reason)
                elapsed = time.monotonic() - began
                # Half of a pause is random: the lanes of a cluster would else come back all at once.
                pause = min(pause, max(0.0, self.limit_s - elapsed))
                if elapsed >= self.limit_s or self._cancelled.wait(pause * random.uniform(0.5, 1.0)):
                    message = f"the storage {place} could not be reached for {elapsed:.0f} s: {reason}"
                    raise StorageError(message) from error
                pause = min(2 * pause, self.longest_pause_s) or self.limit_s

    def cancel(self) -> None:
        """Let requests that fail from now on, or wait for another attempt, fail at once."""
        self._cancelled.set()


def disk_error(error: Exception) -> OSError | None:
    """Return the error of a disk that is full, or cannot be written to any more, that an error is or tells of.

    Others may be those of whoever writes: to try again would not help.
    """
    number = error.errno if isinstance(error, OSError) else None
    if not isinstance(error, OSError) and (found := _OS_ERROR.search(str(error))):
        number = int(found[1])
    if number not in _DISK:
        return None
    return error if isinstance(error, OSError) else OSError(number, str(error))
