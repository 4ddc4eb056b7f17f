"""Asynchronous successive halving (Li et al., 2020, arXiv:1810.05934), as pure functions.

This is the stopping variant: a trial is judged once, when it reaches a rung, against those that
reached it before; nobody waits for anybody and nobody is brought back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def rung_steps(max_steps: int, first_rung: float, reduction_factor: float) -> tuple[int, ...]:
    """Where trials are judged, in optimizer steps; the last is ``max_steps``.

    Rungs grow by ``reduction_factor``. One that would leave less than that factor to the end is left
    out: stopping there saves little. The first is always kept.

    Args:
        max_steps: length of a full trial, at least 1.
        first_rung: the first rung as a fraction of it, in 0..1, above 0.
        reduction_factor: above 1.

    Raises:
        ValueError: if an argument is out of range.
    """
    if max_steps < 1 or not 0 < first_rung <= 1 or reduction_factor <= 1:
        raise ValueError("needs max_steps >= 1, 0 < first_rung <= 1 and reduction_factor > 1")
    steps: list[int] = []
    step = max(1.0, max_steps * first_rung)
    while round(step) < max_steps and (not steps or step * reduction_factor <= max_steps):
        steps.append(round(step))
        step *= reduction_factor
    return (*dict.fromkeys(steps), max_steps)


def promotes(
    value: float,
    results_at_rung: Sequence[float],
    reduction_factor: float,
    min_results: int,
    *,
    higher_is_better: bool,
) -> bool:
    """Whether a trial goes on from a rung.

    Args:
        value: its result there.
        results_at_rung: all results at this rung so far, its own among them.
        reduction_factor: the best ``1 / reduction_factor`` of them go on, at least one; ties go on.
        min_results: while there are fewer results, there is nothing to compare with and all go on.
        higher_is_better: the direction of the metric.

    Returns:
        False for a value that is not finite, whatever the others are.
    """
    if not math.isfinite(value):
        return False
    if len(results_at_rung) < min_results:
        return True
    sign = 1 if higher_is_better else -1
    better = sum(sign * other > sign * value for other in results_at_rung if math.isfinite(other))
    return better < max(1, int(len(results_at_rung) / reduction_factor))
