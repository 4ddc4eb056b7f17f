"""What was decided about one trial at its rungs, and the results of its method that were there at the time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from orchestrator.common.metric import Metric
from orchestrator.common.trial_types import TrialKey
from orchestrator.journal.events import Event


@dataclass(frozen=True, kw_only=True)
class RungDecision:
    """A decision about a trial at a rung.

    Args:
        what: ``paused``, ``went on later`` or ``stopped``.
        step: the rung, in optimizer steps.
        value: the trial's value there.
        place: its place among the method's results there, from 1, as they were when this was decided.
        results: number of those results.
        ahead: values of the results that were better, the best first.
    """

    what: str
    step: int
    value: float
    place: int
    results: int
    ahead: tuple[float, ...]

    @property
    def text(self) -> str:
        """The decision with its numbers, a clause."""
        best = f" (the best has {self.ahead[0]:.3f})" if self.ahead else ""
        if self.what == "stopped":
            return f"not continued by the end of the search, then place {self.place} of {self.results} there{best}"
        return (
            f"{self.what} at step {self.step:,} with {self.value:.3f}, place {self.place} of {self.results} there{best}"
        )


def rung_decisions(events: Iterable[Event], key: TrialKey, metric: Metric) -> list[RungDecision]:
    """Return the decisions about a trial, in their order.

    Args:
        events: the journal's events.
        key: the trial.
        metric: metric of its values.
    """
    return list(_decisions(events, key, metric))


def _decisions(events: Iterable[Event], key: TrialKey, metric: Metric) -> Iterator[RungDecision]:
    values: dict[int, dict[str, float]] = {}
    step, paused = 0, False
    for event in events:
        kind, trial = event["event"], str(event.get("trial", ""))
        if kind == "rung" and trial.rpartition("/")[0] == key.study:
            value = math.nan if event["value"] is None else float(event["value"])
            values.setdefault(int(event["step"]), {})[trial] = value
            step = int(event["step"]) if trial == str(key) else step
        elif trial == str(key) and kind in ("pause", "promote"):
            paused = kind == "pause"
            yield _decision("paused" if paused else "went on later", step, str(key), values[step], metric)
        elif trial == str(key) and kind == "end" and paused and event["state"] == "pruned":
            yield _decision("stopped", step, str(key), values[step], metric)


def _decision(what: str, step: int, trial: str, values: Mapping[str, float], metric: Metric) -> RungDecision:
    value = values[trial]
    better = [other for other in values.values() if metric.sign * other > metric.sign * value]
    return RungDecision(
        what=what,
        step=step,
        value=value,
        place=len(better) + 1,
        results=len(values),
        ahead=tuple(sorted(better, key=lambda other: -metric.sign * other)),
    )
