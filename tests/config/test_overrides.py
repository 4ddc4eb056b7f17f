import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.config import Choices, Fixed, Range
from orchestrator.config.overrides import misfits

INT, FLOAT = IntDistribution(2, 256, log=True), FloatDistribution(1e-5, 1e-1, log=True)
SIZES, RATIOS = CategoricalDistribution((4, 8, 16)), CategoricalDistribution((1, 0.5))
WORDS, SWITCH = CategoricalDistribution(("all", "query")), CategoricalDistribution((True, False))


@pytest.mark.parametrize(
    ("distribution", "override"),
    [
        (INT, Range(low=1, high=512, log=True)),
        (INT, Choices(choices=[3, 5])),
        (FLOAT, Range(low=1, high=2)),
        (FLOAT, Choices(choices=[1, 0.5])),
        (SIZES, Range(low=4, high=64, step=4)),
        (SIZES, Fixed(value=32)),
        (RATIOS, Fixed(value=0.25)),
        (RATIOS, Fixed(value=2)),
        (WORDS, Choices(choices=["query"])),
        (SWITCH, Fixed(value=True)),
    ],
)
def test_what_a_parameter_can_have(distribution, override):
    assert misfits(override, distribution) == []


@pytest.mark.parametrize(
    ("distribution", "override", "where"),
    [
        (INT, Range(low=1.5, high=8), [("low",)]),
        (INT, Range(low=1, high=8.5, step=0.5), [("high",), ("step",)]),
        (INT, Fixed(value=True), [("value",)]),
        (FLOAT, Choices(choices=["a", 1, True]), [("choices", 0), ("choices", 2)]),
        (SIZES, Fixed(value=0.5), [("value",)]),
        (WORDS, Range(low=1, high=2), [()]),
        (WORDS, Choices(choices=["query", "key"]), [("choices", 1)]),
        (SWITCH, Fixed(value=1), [("value",)]),
    ],
)
def test_what_it_cannot_have(distribution, override, where):
    assert [key for key, _ in misfits(override, distribution)] == where
