"""The policies that share a budget between methods and their configurations: ours, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks._policies_between import EstimatedCostOfImprovement, HalvingOverMethods, Only, RisingBandits
from benchmarks._policies_hyperband import Hyperband
from benchmarks._policies_one_study import OneStudy, at_random, tpe
from orchestrator.search.allocation import Equal, Race, RoundRobin
from orchestrator.simulation.replay import Policy, core
from orchestrator.simulation.sweep import Searcher
from orchestrator.simulation.table import Table

Clock = Callable[[], float]
REDUCTION = 2
"""Of every policy that stops trials early: the rungs of the recorded tables double."""


def _race(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return core(Race())(table, seed, budget, clock)


def _round_robin(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return core(RoundRobin())(table, seed, budget, clock)


def _equal(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return core(Equal())(table, seed, budget, clock)


def _rising_bandits(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return core(RisingBandits(budget))(table, seed, budget, clock)


def _eci(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return core(EstimatedCostOfImprovement(seed))(table, seed, budget, clock)


def _sha_methods(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return core(HalvingOverMethods(budget))(table, seed, budget, clock)


def _oracle(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    best = max(table.methods, key=table.best)
    return core(Only(f"{table.task}/{best}"))(table, seed, budget, clock)


def _tpe_asha(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return OneStudy(table, tpe(seed), seed, reduction=REDUCTION)


def _tpe_asha_defaults(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return OneStudy(table, tpe(seed), seed, reduction=REDUCTION, defaults=True)


def _tpe_asha_4(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return OneStudy(table, tpe(seed), seed, reduction=4)


def _random_asha(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return OneStudy(table, at_random(seed), seed, reduction=REDUCTION)


def _random(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return OneStudy(table, at_random(seed), seed, reduction=None)


def _hyperband(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return Hyperband(table, seed, REDUCTION)


POLICIES: dict[str, Policy] = {
    "race": _race,
    "round_robin": _round_robin,
    "equal": _equal,
    "tpe_asha": _tpe_asha,
    "tpe_asha_defaults": _tpe_asha_defaults,
    "tpe_asha_4": _tpe_asha_4,
    "random_asha": _random_asha,
    "hyperband": _hyperband,
    "rising_bandits": _rising_bandits,
    "eci": _eci,
    "sha_methods": _sha_methods,
    "random": _random,
    "oracle": _oracle,
}
"""By the names that the results give them.

``race``, ``round_robin`` and ``equal`` are the Search core's allocations; ``tpe_asha`` is one conditional study with
ASHA, ``tpe_asha_defaults`` the same with every method's default tried first, ``tpe_asha_4`` with Ray's own reduction
factor; ``random`` stops nobody; ``oracle`` knows the best method and searches that alone.
"""
