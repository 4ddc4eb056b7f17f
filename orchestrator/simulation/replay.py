"""One search policy on one recorded table: which method was the best so far after which cost."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.common.trial_types import Ending, TrialKey
from orchestrator.search.allocation import Allocation
from orchestrator.search.budget import SpendingLimits
from orchestrator.search.core import Search
from orchestrator.search.early_stopping import Halving
from orchestrator.search.plans import Decision, Proposal, StudyPlan
from orchestrator.simulation.fleet import Fleet
from orchestrator.simulation.recorded import Recorded
from orchestrator.simulation.spaces import space_of
from orchestrator.simulation.sweep import Clock, Searcher, Simulation
from orchestrator.simulation.table import Table

_HALVING = Halving()

Policy = Callable[[Table, int, float, Callable[[], float]], Searcher]
"""Makes a search from a table, a seed, a budget in lane-seconds and a clock."""


@dataclass(frozen=True)
class Result:
    """A result that was reported to a search.

    Args:
        cost: Lane-seconds of all trials until then.
        method: The trial's method.
        step: The trial's optimizer steps.
        score: The trial's score there.
    """

    cost: float
    method: str
    step: int
    score: float


@dataclass(frozen=True)
class Incumbent:
    """The best method so far, from some cost on.

    Args:
        cost: Lane-seconds of all trials.
        method: The method of the best score at the highest rung with a score.
        step: That rung, in optimizer steps.
        score: That score.
    """

    cost: float
    method: str
    step: int
    score: float


def replay(policy: Policy, table: Table, seed: int, budget: float, *, lanes: int = 1) -> list[Result]:
    """Search a table with a policy.

    Args:
        policy: The policy.
        table: The recorded curves.
        seed: Seed of everything that is random in the search.
        budget: Lane-seconds; later results are not reported.
        lanes: Number of lanes.

    Returns:
        All results that were reported to the search, in order.
    """
    clock = Clock()
    search = _Budgeted(policy(table, seed, budget, clock), budget)
    Simulation(Recorded(table), table.rungs, Fleet(lanes_per_node=lanes), clock).run(search)
    return search.results


def incumbents(results: list[Result]) -> list[Incumbent]:
    """Return each change of the best method, or of its score."""
    changes: list[Incumbent] = []
    for result in results:
        if math.isfinite(result.score) and (
            not changes or (result.step, result.score) > (changes[-1].step, changes[-1].score)
        ):
            changes.append(Incumbent(result.cost, result.method, result.step, result.score))
    return changes


def core(
    allocation: Allocation | None = None, halving: Halving | None = _HALVING, *, trials: int | None = None
) -> Policy:
    """Return the search core as a policy. The methods are shuffled, so that their order in a table has no influence.

    Args:
        allocation: The rule that allocates work to methods.
        halving: Which trials continue at a rung; ``None`` if all do.
        trials: Number of trials that start, at most; ``None`` is no limit.
    """

    def make(table: Table, seed: int, budget: float, clock: Callable[[], float]) -> Search:
        plans = plans_of(table)
        random.Random(seed).shuffle(plans)
        return Search(
            plans,
            table.rungs,
            storage_path=None,
            journal=NullJournal(),
            halving=halving,
            allocation=allocation,
            budget=SpendingLimits(trials=trials, lane_seconds=budget),
            clock=clock,
            seed=seed,
        )

    return make


def plans_of(table: Table) -> list[StudyPlan]:
    """Return the studies of a table. A step costs the method's median time of a step, as a sweep would model it."""
    return [
        StudyPlan(
            study=f"{table.task}/{method}",
            space=space_of(curves),
            higher_is_better=True,
            step_cost=_Constant(table.step_seconds(method)),
        )
        for method, curves in table.methods.items()
    ]


class NullJournal:
    """A journal that stores nothing."""

    def append(self, event: str, **fields: Any) -> None:
        """Discard the event."""


@dataclass(frozen=True)
class _Constant:
    cost: float

    def __call__(self, params: Mapping[str, Any]) -> float:
        return self.cost


class _Budgeted:
    """A search whose results are no longer reported, and whose trials no longer start, once the budget is spent."""

    def __init__(self, search: Searcher, budget: float) -> None:
        self._search = search
        self._budget = budget
        self._spent = 0.0
        self.results: list[Result] = []

    def ask(self) -> Proposal | None:
        return self._search.ask() if self._spent < self._budget else None

    def report(
        self,
        key: TrialKey,
        step: int,
        value: float,
        lane_seconds: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        measurements: Mapping[str, float] | None = None,
    ) -> Decision:
        self._spent += lane_seconds
        if self._spent > self._budget:
            return Decision.STOP
        self.results.append(Result(self._spent, key.method, step, value))
        return self._search.report(key, step, value, lane_seconds, metrics, measurements)

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        self._search.finish(key, state, reason, lane_seconds)
