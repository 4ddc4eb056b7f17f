"""Lanes as text."""

from __future__ import annotations

from orchestrator.config import Lanes


def lanes_text(lanes: Lanes) -> str:
    """Return the number of lanes, and the number and size of the workers of each."""
    count = "as many as fit the cluster" if lanes.max == "auto" else f"at most {lanes.max}"
    sizes = [f"{number:g} {unit}" for number, unit in ((lanes.cpus, "cores"), (lanes.gpus, "GPUs")) if number]
    worker_size = f" of {' and '.join(sizes)}" if sizes else ""
    return f"{count}, each of {lanes.workers} workers{worker_size} that share every batch"
