"""How many trials a lane is offered at once where the configuration leaves it open."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

OFFERED = ((128, 8), (256, 4))
"""Tokens of a trial's batch, at most, and slots: larger batches fill a processor's core by themselves."""
TRIALS_PER_SLOT = 8


def slots(defaults: Iterable[Mapping[str, Any]], max_length: int, trials: int | None) -> int:
    """Slots of a lane, of which it packs as many as it finds to gain; one where little can be gained.

    Every slot is a trial more under way at once, which early stopping knows nothing of yet, and a process for Ray Tune.

    Args:
        defaults: the default configuration of every study.
        max_length: tokens of a row, at most.
        trials: that the sweep may start, if it is told.
    """
    sizes = [default["batch_size"] for default in defaults if "batch_size" in default]
    tokens = statistics.median(sizes or [1]) * max_length
    offered = next((count for most, count in OFFERED if tokens <= most), 1)
    return offered if trials is None else max(1, min(offered, trials // TRIALS_PER_SLOT))
