"""Tell the processes that this one starts from all others, also when those between them have ended."""

from __future__ import annotations

import os
import uuid

MARK = "PEFT_SWEEP_DRIVER"
"""Environment variable that the processes inherit."""


def mark_own_processes(*, starts_ray: bool = True) -> None:
    """Mark all processes that this one starts from now on.

    Args:
        starts_ray: whether Ray's are among them. If not, there is no mark, also none that this process has inherited.
    """
    if starts_ray:
        os.environ[MARK] = uuid.uuid4().hex
    else:
        os.environ.pop(MARK, None)
