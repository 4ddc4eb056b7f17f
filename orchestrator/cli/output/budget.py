"""What a budget means, and how the search spends it."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.common.units import duration
from orchestrator.config import Budget, SearchConfig


def budget_words(budget: Budget) -> str:
    """The limits, of which the first that is reached counts."""
    parts = [f"{budget.trials} trials"] if budget.trials else []
    parts += [f"{duration(budget.wall_time)} of wall time"] if budget.wall_time else []
    parts += [f"{budget.lane_hours:g} lane-hours"] if budget.lane_hours else []
    if budget.money and budget.cost_per_lane_hour:
        hours = budget.money / budget.cost_per_lane_hour
        parts += [f"{budget.money:g} of money ({hours:g} lane-hours)"]
    return " or ".join(parts)


def cost_words(budget: Budget) -> str:
    """What it may come to in money."""
    rate = budget.cost_per_lane_hour
    if rate is None:
        return "no cost rate set (cost_per_lane_hour)"
    if budget.lane_seconds is None:
        return f"{rate:g} per lane-hour; budget.money would bound it"
    return f"{rate * budget.lane_seconds / 3600:g} at most, at {rate:g} per lane-hour"


def spent_words(seconds: float, budget: Budget) -> str:
    """What lane time came to."""
    hours = seconds / 3600
    cost = "" if budget.cost_per_lane_hour is None else f", {budget.cost_per_lane_hour * hours:.2f} of money"
    return f"{hours:.2f} lane-hours{cost}"


def search_lines(search: SearchConfig) -> Iterator[str]:
    """Who proposes, who gets the time, and what is never proposed."""
    stopping = "" if search.early_stopping else " · nobody is stopped early"
    yield f"search    {search.sampler} · {search.allocation.replace('_', ' ')}{stopping}"
    if search.constraints:
        yield f"limits    {', '.join(search.constraints)} · nothing beyond is trained"
