"""Earlier sweeps are believed as long as what is borrowed from them is not behind the defaults."""

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


def study(method: str, trust: PriorGate, sign: int = 1) -> Study:
    return Study(
        f"mail/{method}",
        SPACE,
        higher_is_better=sign == 1,
        storage=open_storage(None),
        seed=0,
        prior=PRIOR,
        trust=trust,
    )


def tried(trust: PriorGate, *values: float, sign: int = 1) -> None:
    """A method's default and then a borrowed configuration, for each value that the latter comes to."""
    for place, value in enumerate(values):
        each = study(f"m{place}", trust, sign)
        assert each.ask()[1] == SPACE.default
        each.report(0, 0, sign * DEFAULT)
        _, params = each.ask()
        if params == PRIOR[0]:
            each.report(1, 0, sign * value)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("values", "deserved"),
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
def test_borrowed_trials_have_to_be_ahead_of_the_defaults(
    values: tuple[float, ...], use_prior: bool, sign: int
) -> None:
    trust = PriorGate()
    tried(trust, *values, sign=sign)
    assert trust.use_prior == use_prior


def test_a_prior_that_failed_in_other_methods_is_tried_no_more_in_this_one() -> None:
    for values, use_prior in (((0.7, 0.7), True), ((0.5, 0.5), False)):
        trust = PriorGate()
        tried(trust, *values)
        each = study("lora", trust)
        asked = [each.ask()[1] for _ in range(7)]
        assert asked[0] == SPACE.default
        assert [params in PRIOR for params in asked[1:]] == [use_prior, False, use_prior, False, False, use_prior]


def test_before_its_default_has_come_a_method_is_not_judged() -> None:
    trust = PriorGate()
    for place in range(3):
        each = study(f"m{place}", trust)
        for _ in range(4):
            each.ask()
        each.report(1, 0, 0.1)
        each.report(3, 0, 0.0)
    assert trust.use_prior


def test_what_the_sampler_proposed_is_not_held_against_the_prior() -> None:
    trust = PriorGate()
    for place in range(3):
        each = study(f"m{place}", trust)
        for _ in range(3):
            each.ask()
        each.report(0, 0, DEFAULT)
        each.report(2, 0, 0.0)
    assert trust.use_prior
