"""Work in a thread, and somebody who looks in on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
INTERVAL = 0.5
GRACE = 30.0


def run_watched(work: Callable[[], T], look: Callable[[], None]) -> T:
    """Do the work in a thread, and look twice a second how it goes.

    Args:
        work: what to do.
        look: called meanwhile. What it raises ends the watch; the work then has half a minute to end by itself.

    Returns:
        What the work returned.

    Raises:
        BaseException: what the work or the look raised.
    """
    done: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            done.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(INTERVAL)
            look()
    except BaseException:
        thread.join(GRACE)
        raise
    if errors:
        raise errors[0]
    return done[0]
