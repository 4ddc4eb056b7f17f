"""JSON lines: cut a line that a killed writer left incomplete, and replace numbers that JSON cannot hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def cut_torn_line(path: Path) -> None:
    """Truncate a file after its last newline: a writer that was killed may have left part of a line.

    Args:
        path: a file, which need not exist.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)


def finite(value: Any) -> Any:
    """Return a value that JSON can hold: NaN and infinities become ``None``, at any depth."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_problem(error: json.JSONDecodeError) -> str:
    """Return what is wrong with a text that is no JSON, as it continues "row 3:"."""
    return f"is not JSON ({error.msg.removesuffix(' at')} at character {error.pos + 1:,})"


def is_unicode(value: Any) -> bool:
    """Return whether a value of JSON can be written as UTF-8: an escape can stand for half of a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
