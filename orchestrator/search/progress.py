"""How far one method has come on one task: who is at which rung, and what it has cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.common.trial_types import TrialRecord
from orchestrator.search.allocation import Arm
from orchestrator.search.plans import StudyPlan
from orchestrator.search.rungs import Halving, Rung

HOPELESS = 3
NOISE = "validation_standard_error"
"""The fact of a trial that tells how far its value would move on other validation rows."""


class Progress:
    """Follows a study's trials; it decides who may go on, and starts nobody.

    Args:
        plan: the study.
        rungs: optimizer steps at which trials report.
        halving: who goes on at a rung; ``None`` if all do.
    """

    def __init__(self, plan: StudyPlan, rungs: Sequence[int], halving: Halving | None) -> None:
        self.plan = plan
        self._steps = tuple(rungs)
        self._halving = halving
        self._sign = 1 if plan.higher_is_better else -1
        self._rungs = {step: Rung(self._sign) for step in self._steps}
        self._coming = dict.fromkeys(self._steps, 0)
        self._charged: dict[int, float] = {}
        self._failed = 0
        self._has_result = False
        self.starts = 0
        self.cost = 0.0
        self.bests: list[float] = []
        self._noise: float | None = None
        self._full_cost = plan.step_cost(plan.space.default) * self._steps[-1]

    @property
    def hopeless(self) -> bool:
        """Several trials failed and none came to a result: the next would fail as well."""
        return self._failed >= HOPELESS and not self._has_result

    def started(self, record: TrialRecord) -> None:
        """A trial begins."""
        self.starts += 1
        self.went_on(record)

    def went_on(self, record: TrialRecord) -> None:
        """A trial is on its way to the next rung, whose cost counts from now on."""
        ahead = self._next(record.step)
        self._coming[ahead] += 1
        self._charge(record, ahead)

    def reported(self, record: TrialRecord) -> None:
        """A trial came to a rung, and is on its way to the next until anything else is said."""
        finite = math.isfinite(record.value)
        self._coming[record.step] -= 1
        self._rungs[record.step].add(record.key.number, record.value)
        self._has_result = True
        if record.step < self._steps[-1]:
            self.went_on(record)
        elif finite:
            self._noise = record.measurements.get(NOISE, self._noise)
            self.bests.append(max([self._sign * record.value, *self.bests[-1:]]))

    def paused(self, record: TrialRecord) -> None:
        """A trial waits at its rung."""
        self._stays(record)
        self._rungs[record.step].wait(record.key.number, record.value)

    def promoted(self, record: TrialRecord) -> None:
        """A trial that waited goes on."""
        self._rungs[record.step].leave(record.key.number)
        self.went_on(record)

    def ended(self, record: TrialRecord, *, paused: bool) -> None:
        """A trial ends, on its way or while it was paused."""
        self._failed += record.state == "failed"
        if paused:
            self._rungs[record.step].leave(record.key.number)
        elif record.step < self._steps[-1]:
            self._stays(record)

    def goes_on(self, record: TrialRecord, *, can_start: bool) -> bool:
        """Whether a trial that just came to a rung is among those that go on from there."""
        if self._halving is None or record.key.number < self._halving.through:
            return True
        return self._rungs[record.step].rank(record.key.number, record.value) < self._quota(record.step, can_start)

    def promotable(self, *, can_start: bool) -> int | None:
        """The number of a paused trial that may go on, the one nearest to the end first."""
        for step in reversed(self._steps[:-1]):
            number = self._rungs[step].first(self._quota(step, can_start))
            if number is not None:
                return number
        return None

    def arm(self) -> Arm:
        """What the allocation between methods looks at."""
        return Arm(self.plan.study, self.starts, self.cost, self._full_cost, self.bests, self._noise)

    def _quota(self, step: int, can_start: bool) -> int:
        if self._halving is None:
            return self._rungs[step].results
        coming = any(count for at, count in self._coming.items() if at <= step)
        return self._halving.quota(self._rungs[step].results, no_more=not (can_start or coming))

    def _stays(self, record: TrialRecord) -> None:
        self._coming[self._next(record.step)] -= 1
        self._charge(record, record.step)

    def _charge(self, record: TrialRecord, until: int) -> None:
        """What a piece costs counts when it starts, so that a lane that asks meanwhile knows of it."""
        cost = until * self.plan.step_cost(record.params)
        self.cost += cost - self._charged.get(record.key.number, 0.0)
        self._charged[record.key.number] = cost

    def _next(self, step: int) -> int:
        return next(rung for rung in self._steps if rung > step)
