"""The costs of a sweep: lane time, wall time, steps, and money where a rate is set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.common.units import counted, duration
from orchestrator.report.history import History


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The costs of a sweep.

    Args:
        wall_seconds: time from the journal's first event to its last.
        search_seconds: lane time of the search.
        final_seconds: lane time of the retrainings in the final, as far as it was measured.
        steps: optimizer steps of all trials.
        full_steps: optimizer steps that the trials would have taken without early stopping.
        rate: money per lane hour; ``None`` where none is set.
        by_method: lane seconds of the search, by method.
        drained: number of nodes that were taken back with notice.
        moved: number of trainings that went on in another lane because of that.
    """

    wall_seconds: float
    search_seconds: float
    final_seconds: float
    steps: int
    full_steps: int
    rate: float | None
    by_method: Mapping[str, float]
    drained: int = 0
    moved: int = 0

    @property
    def lane_seconds(self) -> float:
        """Lane time of search and final."""
        return self.search_seconds + self.final_seconds

    @property
    def money(self) -> str:
        """Price of the lane time, with its rate."""
        if self.rate is None:
            return "no rate is set"
        return f"{self.lane_seconds / 3600 * self.rate:,.2f} at {self.rate:g} per lane hour"

    @property
    def saved(self) -> float:
        """Fraction of the steps that early stopping saved."""
        return 1 - self.steps / self.full_steps if self.full_steps else 0.0

    def lines(self) -> list[tuple[str, str]]:
        """Return name and amount of each cost, for a table."""
        rows = [("wall time", duration(self.wall_seconds)), ("lane time, search", duration(self.search_seconds))]
        if self.final_seconds:
            rows.append(("lane time, final", duration(self.final_seconds)))
        saved = f" ({self.saved:.0%} saved by early stopping)" if self.saved > 0 else ""
        rows.append(("optimizer steps, search", f"{self.steps:,} of {self.full_steps:,}{saved}"))
        if self.drained:
            moved = f"{counted(self.drained, 'node')} taken back, {counted(self.moved, 'training')} moved"
            rows.append(("preemptions", moved))
        return [*rows, ("cost", self.money)]


def costs(history: History) -> Costs:
    """Return the costs of a sweep."""
    by_method: dict[str, float] = {}
    for record in history.trials:
        by_method[record.key.method] = by_method.get(record.key.method, 0.0) + record.lane_seconds
    retrainings = [event.get("measurements", {}) for event in history.tests if event.get("seed") is not None]
    rate = history.config.get("budget", {}).get("cost_per_lane_hour")
    return Costs(
        wall_seconds=history.end - history.begin,
        search_seconds=sum(by_method.values()),
        final_seconds=sum((m.get("train_seconds") or 0.0) + (m.get("evaluation_seconds") or 0.0) for m in retrainings),
        steps=sum(record.step for record in history.trials),
        full_steps=len(history.trials) * history.steps,
        rate=None if rate is None else float(rate),
        drained=history.drained,
        moved=history.moved,
        by_method=dict(sorted(by_method.items(), key=lambda item: -item[1])),
    )
