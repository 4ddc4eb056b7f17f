"""How many methods a sweep can be expected to name, by what searches of recorded tables have named."""

from __future__ import annotations

import json
from functools import cache

from orchestrator.selection.tuning_gain import FILE, floor_count

SINGLE = 0.15
"""Share of the recorded tables' seven methods that is one method."""


@cache
def _named_shares() -> dict[int, tuple[float, float, float]]:
    """Return quartiles of the share of the methods that searches of recorded tables name, by trials per method."""
    shares = json.loads(FILE.read_text(encoding="utf-8"))["named_share"]
    return {int(trials): (low, middle, high) for trials, (low, middle, high) in shares.items()}


def expected_set(trials: int, methods: int) -> str:
    """Return how many methods a sweep of a task can be expected to name, a sentence; empty for a single method.

    Args:
        trials: Trials of the task, all methods together.
        methods: Number of methods.
    """
    if methods < 2 or trials < methods:
        return ""
    shares = _named_shares()
    low, _, high = shares[floor_count(trials // methods, tuple(shares))]
    fewest, most = max(1, round(low * methods)), max(1, round(high * methods))
    size = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    single = next((count for count, (_, middle, _) in shares.items() if middle <= SINGLE), None)
    name = (
        f"most recorded searches had no single name even with {max(shares)} trials per method"
        if single is None
        else f"for a single name about {single * methods} trials"
    )
    return f"{trials} trials over {methods} methods: expect a set of {size} that may be the best; {name}"
