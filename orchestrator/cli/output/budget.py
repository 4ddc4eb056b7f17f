"""Budgets and search settings as text."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.common.units import duration
from orchestrator.config import Budget, SearchConfig


def budget_text(budget: Budget) -> str:
    """Return the limits of a budget; the first one that is reached ends the search."""
    parts = [f"{budget.trials} trials"] if budget.trials else []
    parts += [f"{duration(budget.wall_time)} of wall time"] if budget.wall_time else []
    parts += [f"{budget.lane_hours:g} lane-hours"] if budget.lane_hours else []
    if budget.money and budget.cost_per_lane_hour:
        hours = budget.money / budget.cost_per_lane_hour
        parts += [f"{budget.money:g} of money ({hours:g} lane-hours)"]
    return " or ".join(parts)


def cost_text(budget: Budget) -> str:
    """Return the largest cost of a budget in money, as far as it is known."""
    rate = budget.cost_per_lane_hour
    if rate is None:
        return "no cost rate set (cost_per_lane_hour)"
    if budget.lane_seconds is None:
        return f"{rate:g} per lane-hour; set budget.money to limit it"
    return f"{rate * budget.lane_seconds / 3600:g} at most, at {rate:g} per lane-hour"


def spent_text(seconds: float, budget: Budget) -> str:
    """Return the lane time that was spent, and its cost where a rate is known.

    Args:
        seconds: lane time in seconds.
        budget: the budget, with the rate.
    """
    hours = seconds / 3600
    cost = "" if budget.cost_per_lane_hour is None else f", {budget.cost_per_lane_hour * hours:.2f} of money"
    return f"{hours:.2f} lane-hours{cost}"


def search_lines(search: SearchConfig) -> Iterator[str]:
    """Return the lines on sampler, allocation, early stopping and constraints of a search."""
    stopping = "" if search.early_stopping else " · no early stopping"
    yield f"search    {search.sampler} · {search.allocation.replace('_', ' ')}{stopping}"
    if search.constraints:
        yield f"limits    {', '.join(search.constraints)} · no trial exceeds them"
