"""The progress of one method on one task: which trial is at which rung, and what the method has cost.

The rule by which trials continue at a rung is in :mod:`orchestrator.search.early_stopping`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.common.trial_types import TrialRecord
from orchestrator.search.allocation import Arm
from orchestrator.search.early_stopping import Halving, decide, quota
from orchestrator.search.plans import Decision, StudyPlan
from orchestrator.search.rungs import Rung

MAX_FAILURES = 3
"""Number of failed trials after which a study that has no result starts no more."""
NOISE_MEASUREMENT = "validation_standard_error"
"""The measurement of a trial that is the standard error of its value over validation rows."""


class Progress:
    """Follows a study's trials over the rungs.

    Args:
        plan: The study.
        rungs: Optimizer steps at which trials report.
        halving: Which trials continue at a rung; ``None`` if all do.
    """

    def __init__(self, plan: StudyPlan, rungs: Sequence[int], halving: Halving | None) -> None:
        self.plan = plan
        self._steps = tuple(rungs)
        self._halving = halving
        self._sign = 1 if plan.higher_is_better else -1
        self._rungs = {step: Rung(self._sign) for step in self._steps}
        self._on_the_way_to = dict.fromkeys(self._steps, 0)
        self._charged: dict[int, float] = {}
        self._failures = 0
        self._has_result = False
        self.starts = 0
        self.cost = 0.0
        self.bests: list[float] = []
        self._noise: float | None = None
        self._full_cost = plan.step_cost(plan.space.default) * self._steps[-1]

    @property
    def hopeless(self) -> bool:
        """Whether several trials failed and none had a result, so that the next would fail as well."""
        return self._failures >= MAX_FAILURES and not self._has_result

    def started(self, record: TrialRecord) -> None:
        """Count a trial that starts."""
        self.starts += 1
        self.continued(record)

    def continued(self, record: TrialRecord) -> None:
        """Count a trial that trains on to the next rung, and charge that rung's cost."""
        next_rung = self._next(record.step)
        self._on_the_way_to[next_rung] += 1
        self._charge(record, next_rung)

    def reported(self, record: TrialRecord) -> None:
        """Add a trial's result at a rung; the trial counts as training on until it pauses or ends."""
        self._on_the_way_to[record.step] -= 1
        self._rungs[record.step].add(record.key.number, record.value)
        self._has_result = True
        if record.step < self._steps[-1]:
            self.continued(record)
        elif math.isfinite(record.value):
            self._noise = record.measurements.get(NOISE_MEASUREMENT, self._noise)
            self.bests.append(max([self._sign * record.value, *self.bests[-1:]]))

    def paused(self, record: TrialRecord) -> None:
        """Let a trial wait at its rung."""
        self._cancel_next_rung(record)
        self._rungs[record.step].wait(record.key.number, record.value)

    def promoted(self, record: TrialRecord) -> None:
        """Continue a trial that waited."""
        self._rungs[record.step].leave(record.key.number)
        self.continued(record)

    def ended(self, record: TrialRecord, *, paused: bool) -> None:
        """Count a trial that ends while it trains, or while it is paused."""
        self._failures += record.state == "failed"
        if paused:
            self._rungs[record.step].leave(record.key.number)
        elif record.step < self._steps[-1]:
            self._cancel_next_rung(record)

    def decide(self, record: TrialRecord, *, can_start: bool, budget_spent: bool) -> Decision:
        """Return what happens to a trial that has just reported at a rung.

        Args:
            record: The trial.
            can_start: Whether the study can start another trial.
            budget_spent: Whether the budget's time is over.
        """
        return decide(
            self._halving,
            record,
            self._rungs[record.step],
            is_last=record.step == self._steps[-1],
            budget_spent=budget_spent,
            no_more=self._no_more_results(record.step, can_start),
            error=self._noise,
        )

    def promotable(self, *, can_start: bool) -> int | None:
        """Return the number of a paused trial that may continue, one at the highest rung first."""
        for step in reversed(self._steps[:-1]):
            rung = self._rungs[step]
            no_more = self._no_more_results(step, can_start)
            number = rung.best_waiting(quota(self._halving, rung, no_more=no_more, error=self._noise))
            if number is not None:
                return number
        return None

    def arm(self) -> Arm:
        """Return what an allocation rule sees of the study."""
        return Arm(self.plan.study, self.starts, self.cost, self._full_cost, self.bests, self._noise)

    def _no_more_results(self, step: int, can_start: bool) -> bool:
        """Return whether a rung gets no more results: no trial is on the way to it, and none can start."""
        return not can_start and not any(count for rung, count in self._on_the_way_to.items() if rung <= step)

    def _cancel_next_rung(self, record: TrialRecord) -> None:
        """Take back what was counted and charged for the next rung of a trial that pauses or ends."""
        self._on_the_way_to[self._next(record.step)] -= 1
        self._charge(record, record.step)

    def _charge(self, record: TrialRecord, until: int) -> None:
        """Set a trial's cost to that of its steps until a rung.

        A piece of work is charged when it starts, so that a lane that asks in the meantime sees the cost.
        """
        cost = until * self.plan.step_cost(record.params)
        self.cost += cost - self._charged.get(record.key.number, 0.0)
        self._charged[record.key.number] = cost

    def _next(self, step: int) -> int:
        return next(rung for rung in self._steps if rung > step)
