"""Wait for a real state, by asking for it again and again."""

import time
from collections.abc import Callable
from typing import Any


def until(holds: Callable[[], Any], seconds: float = 120.0, pause: float = 0.05) -> Any:
    """Call a function until it returns a true value, and return that value.

    Args:
        holds: Function that looks at the state.
        seconds: Seconds after which the test fails.
        pause: Seconds between two looks.
    """
    deadline = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(pause)
    return value
