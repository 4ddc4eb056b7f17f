"""Search policies that ``benchmarks.selection`` compares: this project's allocations, and published ones."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks._policies_across_methods import (
    EstimatedCostOfImprovement,
    HalvingOverMethods,
    RisingBandits,
    SingleMethod,
)
from benchmarks._policies_hyperband import Hyperband
from benchmarks._policies_one_study import OneStudy, random_sampler, tpe_sampler
from orchestrator.search.allocation import Equal, Race, RoundRobin
from orchestrator.simulation.replay import Policy, core
from orchestrator.simulation.sweep import Searcher
from orchestrator.simulation.table import Table

Clock = Callable[[], float]
REDUCTION = 2
"""Reduction factor of every policy that stops trials early, since the rungs of the recorded tables double."""


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
    return core(SingleMethod(f"{table.task}/{best}"))(table, seed, budget, clock)


def _tpe_asha(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return OneStudy(table, tpe_sampler(seed), seed, reduction=REDUCTION)


def _tpe_asha_defaults(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return OneStudy(table, tpe_sampler(seed), seed, reduction=REDUCTION, defaults=True)


def _tpe_asha_4(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return OneStudy(table, tpe_sampler(seed), seed, reduction=4)


def _random_asha(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return OneStudy(table, random_sampler(seed), seed, reduction=REDUCTION)


def _random(table: Table, seed: int, budget: float, clock: Clock) -> Searcher:
    return OneStudy(table, random_sampler(seed), seed, reduction=None)


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
"""Policies by the names in the results.

``race``, ``round_robin`` and ``equal`` are the search core's allocations. ``tpe_asha`` is one study with a conditional
search space and ASHA; ``tpe_asha_defaults`` is the same with every method's default tried first, and ``tpe_asha_4``
with a reduction factor of 4, Ray's default. ``random_asha`` and ``random`` sample the same space at random, with and
without ASHA. ``oracle`` searches the truly best method only. The other policies are documented at their classes.
"""
