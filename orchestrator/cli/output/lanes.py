"""Lanes in words."""

from __future__ import annotations

from orchestrator.config import Lanes


def lanes_words(lanes: Lanes) -> str:
    """How many there will be, and how many workers of which size each has."""
    count = "as many as there is room for" if lanes.max == "auto" else f"{lanes.max} at most"
    sizes = [f"{number:g} {unit}" for number, unit in ((lanes.cpus, "cores"), (lanes.gpus, "GPUs")) if number]
    each = f" of {' and '.join(sizes)}" if sizes else ""
    return f"{count}, each of {lanes.workers} workers{each} that share every batch"
