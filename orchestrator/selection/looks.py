"""Looks at the test split: what it costs a sweep's statements that the same rows are scored again.

A finished sweep that is extended compares its methods on the test rows a second time, and whoever extends it has seen
the first answer. Each look therefore may err half as often as the one before: 5 % of sweeps, 2.5 %, 1.25 % ... Whatever
made somebody look again, the last answer is wrong no more often than all looks together, which is below 10 %.
"""

from __future__ import annotations

FIRST_ERROR = 0.05
"""Share of sweeps in which the first look may err."""


def level_of(look: int) -> float:
    """Return the level of the intervals and ties of a look, counted from 1."""
    return 1 - FIRST_ERROR * 0.5 ** (look - 1)


def level_text(look: int) -> str:
    """Return the level of a look, ``95 %`` for the first."""
    return f"{100 * level_of(look):.4g} %"


def look_text(look: int) -> str:
    """Return which look it is and what that costs, a clause; empty for the first."""
    if look == 1:
        return ""
    together = sum(1 - level_of(number) for number in range(1, look + 1))
    return (
        f"look {look} at the same test rows: intervals and ties are at the {level_text(look)} level, and all looks"
        f" together err in at most {100 * together:.3g} % of sweeps"
    )
