"""Numbers as people read them: durations, bytes, counts, and the names of metrics."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Minutes and seconds, ``2:05``, or hours as well, ``1:02:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def number(count: float) -> str:
    """A count of parameters: ``74k``, ``22.7M``."""
    for unit in ("", "k", "M", "B"):
        if round(count) < 1000:
            return f"{count:.0f}{unit}" if not unit or count >= 100 else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f}T"


def metric_name(metric: str) -> str:
    """As people write it."""
    return {"macro_f1": "macro-F1", "exact_match": "exact match"}.get(metric, metric)
