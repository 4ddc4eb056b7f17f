"""One policy on one recorded table: who was named after which cost."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.common.trial_types import Ending, TrialKey
from orchestrator.search.allocation import Allocation
from orchestrator.search.budget import Limits
from orchestrator.search.core import Search
from orchestrator.search.plans import Decision, Proposal, StudyPlan
from orchestrator.search.rungs import Halving
from orchestrator.simulation.fleet import Fleet
from orchestrator.simulation.recorded import Recorded
from orchestrator.simulation.spaces import space_of
from orchestrator.simulation.sweep import Clock, Searcher, Simulation
from orchestrator.simulation.table import Table

_HALVING = Halving()

Policy = Callable[[Table, int, float, Callable[[], float]], Searcher]
"""Makes a search of a table, a seed, a budget in lane-seconds and a clock."""


@dataclass(frozen=True)
class Result:
    """What a search was told.

    Args:
        cost: lane-seconds until then, of all trials.
        method: of the trial.
        step: that it had come to.
        score: there.
    """

    cost: float
    method: str
    step: int
    score: float


@dataclass(frozen=True)
class Naming:
    """The method that would be named, from some cost on.

    Args:
        cost: lane-seconds.
        method: of the best score at the highest rung that has any.
        step: that rung.
        score: that score.
    """

    cost: float
    method: str
    step: int
    score: float


def replay(policy: Policy, table: Table, seed: int, budget: float, *, lanes: int = 1) -> list[Result]:
    """Let a policy search a table.

    Args:
        policy: makes the search.
        table: answers it.
        seed: of all that is random in the search.
        budget: lane-seconds; what comes later is not there.
        lanes: that work at once.

    Returns:
        Everything that the search was told, in order.
    """
    clock = Clock()
    search = _Budgeted(policy(table, seed, budget, clock), budget)
    Simulation(Recorded(table), table.rungs, Fleet(lanes_per_node=lanes), clock).run(search)
    return search.results


def namings(results: list[Result]) -> list[Naming]:
    """How the method that would be named, or its score, changed."""
    found: list[Naming] = []
    for one in results:
        if math.isfinite(one.score) and (not found or (one.step, one.score) > (found[-1].step, found[-1].score)):
            found.append(Naming(one.cost, one.method, one.step, one.score))
    return found


def core(allocation: Allocation | None = None, halving: Halving | None = _HALVING) -> Policy:
    """The Search core as a policy; the order of the methods, which is nobody's choice, is drawn.

    Args:
        allocation: between the methods.
        halving: who goes on at a rung; ``None`` if all do.
    """

    def make(table: Table, seed: int, budget: float, clock: Callable[[], float]) -> Search:
        plans = plans_of(table)
        random.Random(seed).shuffle(plans)
        return Search(
            plans,
            table.rungs,
            storage_path=None,
            journal=Unwritten(),
            halving=halving,
            allocation=allocation,
            budget=Limits(lane_seconds=budget),
            clock=clock,
            seed=seed,
        )

    return make


def plans_of(table: Table) -> list[StudyPlan]:
    """The studies of a table. A step costs what the method's steps take in the middle, which is known before."""
    return [
        StudyPlan(
            study=f"{table.task}/{method}",
            space=space_of(curves),
            higher_is_better=True,
            step_cost=_Constant(table.step_seconds(method)),
        )
        for method, curves in table.methods.items()
    ]


class Unwritten:
    """A journal that nobody will read."""

    def append(self, event: str, **fields: Any) -> None:
        """Forget the event."""


@dataclass(frozen=True)
class _Constant:
    cost: float

    def __call__(self, params: Mapping[str, Any]) -> float:
        return self.cost


class _Budgeted:
    """A search that hears nothing any more, and gets nothing, once the budget is spent."""

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
