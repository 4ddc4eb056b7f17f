"""What has become of a search so far: a state that only events change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.search.budget import Budget
from orchestrator.search.plans import StudyPlan
from orchestrator.search.progress import Progress
from orchestrator.search.reserve import Pace
from orchestrator.search.rungs import Halving

CHANGES = frozenset({"trial", "rung", "pause", "promote", "end"})
"""The events of the journal that change it."""


class SearchState:
    """Trials, rungs and costs, brought about by events alone, so that the same events bring about the same state.

    Args:
        plans: the studies.
        rungs: optimizer steps at which trials report.
        halving: who goes on at a rung; ``None`` if all do.
        budget: counts trials and lane time.
    """

    def __init__(
        self, plans: Sequence[StudyPlan], rungs: Sequence[int], halving: Halving | None, budget: Budget
    ) -> None:
        self.records: dict[TrialKey, TrialRecord] = {}
        self.running: dict[TrialKey, None] = {}
        self.progress = {plan.study: Progress(plan, rungs, halving) for plan in plans}
        self.budget = budget
        budget.paces = {plan.study: Pace(plan.task) for plan in plans}

    def apply(self, event: str, key: TrialKey, what: Mapping[str, Any]) -> None:
        """Take an event that the journal has.

        Args:
            event: one of :data:`CHANGES`.
            key: the trial that it is about.
            what: its fields.
        """
        match event:
            case "trial":
                self.records[key] = record = TrialRecord(key=key, params=what["params"])
                self.budget.trials += 1
                self.running[key] = None
                self.progress[key.study].started(record)
            case "rung":
                self._arrive(key, what)
            case "pause":
                self.records[key] = replace(self.records[key], state="paused")
                del self.running[key]
                self.progress[key.study].paused(self.records[key])
            case "promote":
                self.records[key] = replace(self.records[key], state="running")
                self.running[key] = None
                self.progress[key.study].promoted(self.records[key])
            case "end":
                self._leave(key, what)

    def _arrive(self, key: TrialKey, what: Mapping[str, Any]) -> None:
        record, step, spent = self.records[key], int(what["step"]), float(what["lane_seconds"])
        value = math.nan if what["value"] is None else float(what["value"])  # JSON has no NaN
        self.records[key] = arrived = replace(
            record,
            values={**record.values, step: value},
            lane_seconds=record.lane_seconds + spent,
            measurements=dict(what["measurements"]),
        )
        self.progress[key.study].reported(arrived)
        self._spend(arrived, step - record.step, spent)

    def _spend(self, record: TrialRecord, steps: int, seconds: float) -> None:
        """Count what a result has cost, and how its method stands with it."""
        self.budget.lane_seconds += seconds
        pace, plan = self.budget.paces[record.key.study], self.progress[record.key.study].plan
        pace.steps += steps
        pace.lane_seconds += seconds
        pace.best = max(pace.best, record.rank(higher_is_better=plan.higher_is_better))

    def _leave(self, key: TrialKey, what: Mapping[str, Any]) -> None:
        record, spent = self.records[key], float(what.get("lane_seconds", 0.0))
        self.budget.lane_seconds += spent
        self.records[key] = replace(
            record, state=what["state"], reason=what["reason"], lane_seconds=record.lane_seconds + spent
        )
        self.running.pop(key, None)
        self.progress[key.study].ended(self.records[key], paused=record.state == "paused")
