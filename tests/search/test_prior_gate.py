"""Configurations of earlier sweeps are tried as long as they are not behind the defaults."""

from __future__ import annotations

import math

import pytest
from optuna.distributions import FloatDistribution

from orchestrator.search.prior_gate import PriorGate
from orchestrator.search.studies import Study, open_storage
from search_spaces._base import SearchSpace

SPACE = SearchSpace(distributions={"x": FloatDistribution(0.0, 1.0)}, default={"x": 0.5}, sources={})
PRIOR = [{"x": 0.1}, {"x": 0.2}, {"x": 0.3}]
DEFAULT = 0.6


def study(method: str, gate: PriorGate, sign: int = 1) -> Study:
    return Study(
        f"mail/{method}",
        SPACE,
        higher_is_better=sign == 1,
        storage=open_storage(None),
        seed=0,
        prior=PRIOR,
        prior_gate=gate,
    )


def report_transferred(gate: PriorGate, *values: float, sign: int = 1) -> None:
    """Report a default and a transferred configuration in one method per value, which is the latter's."""
    for index, value in enumerate(values):
        each = study(f"m{index}", gate, sign)
        assert each.ask()[1] == SPACE.default
        each.report(0, 0, sign * DEFAULT)
        _, params = each.ask()
        if params == PRIOR[0]:
            each.report(1, 0, sign * value)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("values", "use_prior"),
    [
        ((), True),
        ((0.5,), True),  # one may start slowly
        ((0.5, 0.5), False),
        ((0.5, DEFAULT), False),  # as good is not better
        ((math.nan, math.nan), False),
        ((0.5, 0.7, 0.5, 0.5), True),
        ((0.7, 0.5, 0.5, 0.5, 0.5), False),
    ],
)
def test_prior_gate_needs_transferred_trials_ahead_of_defaults(
    values: tuple[float, ...], use_prior: bool, sign: int
) -> None:
    gate = PriorGate()
    report_transferred(gate, *values, sign=sign)
    assert gate.use_prior == use_prior


def test_prior_gate_closes_for_all_methods_of_a_task() -> None:
    for values, use_prior in (((0.7, 0.7), True), ((0.5, 0.5), False)):
        gate = PriorGate()
        report_transferred(gate, *values)
        each = study("lora", gate)
        proposals = [each.ask()[1] for _ in range(7)]
        assert proposals[0] == SPACE.default
        assert [params in PRIOR for params in proposals[1:]] == [use_prior, False, use_prior, False, False, use_prior]


def test_prior_gate_waits_for_the_default() -> None:
    gate = PriorGate()
    for index in range(3):
        each = study(f"m{index}", gate)
        for _ in range(4):
            each.ask()
        each.report(1, 0, 0.1)
        each.report(3, 0, 0.0)
    assert gate.use_prior


def test_prior_gate_ignores_proposals_of_the_sampler() -> None:
    gate = PriorGate()
    for index in range(3):
        each = study(f"m{index}", gate)
        for _ in range(3):
            each.ask()
        each.report(0, 0, DEFAULT)
        each.report(2, 0, 0.0)
    assert gate.use_prior
