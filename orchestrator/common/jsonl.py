"""Lines of JSON in files that grow: what may stand in them, and what a writer that died leaves behind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def cut_torn_line(path: Path) -> None:
    """Cut a file at its last newline: what follows was being written when the writer died.

    A file that does not exist is left alone.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)


def finite(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
