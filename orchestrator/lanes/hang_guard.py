"""End a lane's process that hangs: nothing else stops a thread that does not return."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from orchestrator.lanes.step_watch import Hang, HangLimits, StepWatch

STDERR = 2
REPORT_TIMEOUT_S = 10.0
log = logging.getLogger(__name__)


class HangGuard:
    """A thread that ends the process when its work hangs, with the stacks of all threads in its log.

    Code that never lets another thread of Python run (a deadlock in an extension that holds the interpreter's lock)
    would stop this thread too. A timer of C, which this thread keeps putting off, then ends the process.

    Args:
        watch: what notices the hang.
        limits: how long a silence may last; the timer ends the process after twice the least.
        report: function that tells the broker, before the process ends.
    """

    def __init__(self, watch: StepWatch, limits: HangLimits, report: Callable[[Hang], None]) -> None:
        self._watch, self._timer_s, self._report = watch, 2 * limits.least_s, report
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hang guard", daemon=True)

    def start(self) -> None:
        """Start to watch."""
        self._put_off_timer()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        while not self._stop.wait(self._watch.interval_s):
            self._put_off_timer()
            if hang := self._watch.tick():
                self._end(hang)
                return

    def _put_off_timer(self) -> None:
        faulthandler.dump_traceback_later(self._timer_s, exit=True, file=STDERR)

    def _end(self, hang: Hang) -> None:
        log.error("the lane is stuck and starts again; %s; the stacks of its threads follow", hang)
        faulthandler.dump_traceback(file=STDERR, all_threads=True)
        reporting = threading.Thread(target=self._tell, args=(hang,), daemon=True)
        reporting.start()
        reporting.join(REPORT_TIMEOUT_S)
        end_process()

    def _tell(self, hang: Hang) -> None:
        with suppress(Exception):  # the process ends in any case, and the broker notices that
            self._report(hang)


def end_process() -> None:
    """End this process at once; Ray Train starts another."""
    os._exit(1)
