"""What a sweep has cost: lane time, wall time, steps, and money where a rate is set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.common.units import duration
from orchestrator.report.history import History


@dataclass(frozen=True, kw_only=True)
class Costs:
    """A sweep's costs.

    Args:
        wall_seconds: from the journal's first event to its last.
        search_seconds: lane time of the search.
        final_seconds: lane time of the retrainings in the final, as far as it was measured.
        steps: optimizer steps that trials were trained for.
        full_steps: what they would have been without early stopping.
        rate: money per lane hour; ``None`` where none is set.
        by_method: lane seconds of the search, by method.
    """

    wall_seconds: float
    search_seconds: float
    final_seconds: float
    steps: int
    full_steps: int
    rate: float | None
    by_method: Mapping[str, float]

    @property
    def lane_seconds(self) -> float:
        """Search and final."""
        return self.search_seconds + self.final_seconds

    @property
    def money(self) -> str:
        """As people read it."""
        if self.rate is None:
            return "no rate is set"
        return f"{self.lane_seconds / 3600 * self.rate:,.2f} at {self.rate:g} per lane hour"

    @property
    def saved(self) -> float:
        """The share of steps that early stopping left out."""
        return 1 - self.steps / self.full_steps if self.full_steps else 0.0

    def lines(self) -> list[tuple[str, str]]:
        """Name and amount, for a table."""
        found = [("wall time", duration(self.wall_seconds)), ("lane time, search", duration(self.search_seconds))]
        if self.final_seconds:
            found.append(("lane time, final", duration(self.final_seconds)))
        saved = f" ({self.saved:.0%} left out by stopping early)" if self.saved > 0 else ""
        found.append(("optimizer steps, search", f"{self.steps:,} of {self.full_steps:,}{saved}"))
        return [*found, ("cost", self.money)]


def costs(history: History) -> Costs:
    """Of the whole sweep."""
    by_method: dict[str, float] = {}
    for record in history.trials:
        by_method[record.key.method] = by_method.get(record.key.method, 0.0) + record.lane_seconds
    retrained = [event.get("measurements", {}) for event in history.tests if event.get("seed") is not None]
    rate = history.config.get("budget", {}).get("cost_per_lane_hour")
    return Costs(
        wall_seconds=history.end - history.begin,
        search_seconds=sum(by_method.values()),
        final_seconds=sum((f.get("train_seconds") or 0.0) + (f.get("evaluation_seconds") or 0.0) for f in retrained),
        steps=sum(record.step for record in history.trials),
        full_steps=len(history.trials) * history.steps,
        rate=None if rate is None else float(rate),
        by_method=dict(sorted(by_method.items(), key=lambda item: -item[1])),
    )
