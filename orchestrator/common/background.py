"""Run work in a thread while the calling thread checks on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from orchestrator.common.errors import MachineryError

T = TypeVar("T")
INTERVAL_S = 0.5
SHUTDOWN_TIMEOUT_S = 30.0
MACHINERY_TIMEOUT_S = 2.0


def run_watched(work: Callable[[], T], check: Callable[[], None]) -> T:
    """Run work in a daemon thread, and call a check every half second until it ends.

    The check runs in the calling thread, because signals such as Ctrl-C are handled in the main thread only.

    Args:
        work: function to run.
        check: function to call meanwhile. If it raises an exception, the work gets up to ``SHUTDOWN_TIMEOUT_S`` to end,
            and the exception is raised. After a :class:`MachineryError`, which it may wait for for ever, it gets
            ``MACHINERY_TIMEOUT_S``.

    Returns:
        The result of the work.

    Raises:
        BaseException: whatever the work or the check raised.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(INTERVAL_S)
            check()
    except BaseException as error:
        thread.join(MACHINERY_TIMEOUT_S if isinstance(error, MachineryError) else SHUTDOWN_TIMEOUT_S)
        raise
    if errors:
        raise errors[0]
    return results[0]
