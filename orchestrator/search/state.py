"""The state of a search, which events alone change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.search.budget import Budget
from orchestrator.search.early_stopping import Halving
from orchestrator.search.plans import StudyPlan
from orchestrator.search.progress import Progress
from orchestrator.search.reserve import Pace

STATE_EVENTS = frozenset({"trial", "rung", "pause", "promote", "end"})
"""The events of the journal that change the state."""


class SearchState:
    """Trials, rungs and costs. Events alone change them, so that the same events always give the same state.

    Args:
        plans: The studies.
        rungs: Optimizer steps at which trials report.
        halving: Which trials continue at a rung; ``None`` if all do.
        budget: Counts trials and lane time.
    """

    def __init__(
        self, plans: Sequence[StudyPlan], rungs: Sequence[int], halving: Halving | None, budget: Budget
    ) -> None:
        self.records: dict[TrialKey, TrialRecord] = {}
        self.running: dict[TrialKey, None] = {}
        self.progress = {plan.study: Progress(plan, rungs, halving) for plan in plans}
        self.budget = budget
        budget.paces = {plan.study: Pace(plan.task) for plan in plans}

    def apply(self, event: str, key: TrialKey, fields: Mapping[str, Any]) -> None:
        """Apply an event that the journal has.

        Args:
            event: One of :data:`STATE_EVENTS`.
            key: The trial that the event is about.
            fields: The event's fields.
        """
        match event:
            case "trial":
                self.records[key] = record = TrialRecord(key=key, params=fields["params"])
                self.budget.trials += 1
                self.running[key] = None
                self.progress[key.study].started(record)
            case "rung":
                self._add_result(key, fields)
            case "pause":
                self.records[key] = replace(self.records[key], state="paused")
                del self.running[key]
                self.progress[key.study].paused(self.records[key])
            case "promote":
                self.records[key] = replace(self.records[key], state="running")
                self.running[key] = None
                self.progress[key.study].promoted(self.records[key])
            case "end":
                self._end(key, fields)

    def _add_result(self, key: TrialKey, fields: Mapping[str, Any]) -> None:
        record, step, seconds = self.records[key], int(fields["step"]), float(fields["lane_seconds"])
        value = math.nan if fields["value"] is None else float(fields["value"])  # JSON has no NaN
        self.records[key] = reported = replace(
            record,
            values={**record.values, step: value},
            lane_seconds=record.lane_seconds + seconds,
            measurements=dict(fields["measurements"]),
        )
        self.progress[key.study].reported(reported)
        self._charge_budget(reported, step - record.step, seconds)

    def _charge_budget(self, record: TrialRecord, steps: int, seconds: float) -> None:
        """Charge the budget for a result, and update the pace of its method."""
        self.budget.lane_seconds += seconds
        pace, plan = self.budget.paces[record.key.study], self.progress[record.key.study].plan
        pace.steps += steps
        pace.lane_seconds += seconds
        pace.best = max(pace.best, record.rank(higher_is_better=plan.higher_is_better))

    def _end(self, key: TrialKey, fields: Mapping[str, Any]) -> None:
        record, seconds = self.records[key], float(fields.get("lane_seconds", 0.0))
        self.budget.lane_seconds += seconds
        self.records[key] = replace(
            record, state=fields["state"], reason=fields["reason"], lane_seconds=record.lane_seconds + seconds
        )
        self.running.pop(key, None)
        self.progress[key.study].ended(self.records[key], paused=record.state == "paused")
