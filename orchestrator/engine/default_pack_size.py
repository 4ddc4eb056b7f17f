"""How many trials a lane is offered at once where the configuration leaves it open."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

SLOTS = 8
TOKENS = 128
"""Of a trial's batch, at most: a larger one fills a processor's core by itself, and gains nothing in a pack."""
TRIALS_PER_SLOT = 8


def default_pack_size(defaults: Iterable[Mapping[str, Any]], max_length: int, trials: int | None) -> int:
    """Slots of a lane, of which it packs as many as it finds to gain; one where little can be gained.

    Every slot is a trial more under way at once, which early stopping knows nothing of yet, a process for Ray Tune, and
    a longer wait for the last trials, which leave other slots empty.

    Args:
        defaults: the default configuration of every study.
        max_length: tokens of a row, at most.
        trials: that the sweep may start, if it is told.
    """
    sizes = [default["batch_size"] for default in defaults if "batch_size" in default]
    tokens = statistics.median(sizes or [1]) * max_length
    if tokens > TOKENS:
        return 1
    return SLOTS if trials is None else max(1, min(SLOTS, trials // TRIALS_PER_SLOT))
