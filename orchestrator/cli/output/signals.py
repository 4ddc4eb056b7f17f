"""What Ctrl-C and other signals do to a running sweep."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a request to end, and the terminal that is closed."""
ONE_SIGNAL_S = 1.0
"""Seconds within which signals count as one: ``timeout`` and terminals signal a process and its group."""


@contextmanager
def signals_stop(stop: threading.Event, end: Callable[[], None]) -> Iterator[None]:
    """Let the first signal stop a sweep, and a later one end the process at once.

    Args:
        stop: event that stops the sweep after its current step.
        end: function that says how to continue, before the process ends.
    """
    first = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not stop.is_set():
            first = time.monotonic()
            stop.set()
        elif time.monotonic() - first > ONE_SIGNAL_S:
            with suppress(OSError):  # a terminal that was closed
                end()
            end_process(130)

    handlers = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def end_process(code: int) -> NoReturn:
    """End this process and those that it started, without any more of their work.

    Args:
        code: exit code of this process.
    """
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(code)
