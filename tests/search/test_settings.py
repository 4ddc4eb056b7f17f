"""What methods tell each other of the learning rate and whatever else they share."""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from orchestrator.search.axes import axis_of
from orchestrator.search.history import History, made
from orchestrator.search.settings import TrainingSettings, ranks
from orchestrator.search.studies import Study, open_storage
from search_spaces._base import SearchSpace

Score = Callable[[float, int], float]


def space(rate: float, **more: Any) -> SearchSpace:
    distributions = {
        "learning_rate": FloatDistribution(rate, 100 * rate, log=True),
        "batch_size": CategoricalDistribution([16, 8, 32]),
        **more,
    }
    return SearchSpace(distributions=distributions, default={"learning_rate": 10 * rate, "batch_size": 16}, sources={})


SPACES = {"lora": space(1e-5), "ia3": space(1e-3), "prefix": space(1e-4)}


def place(method: str, params: Mapping[str, Any]) -> float:
    return axis_of(SPACES[method].distributions["learning_rate"]).place(params["learning_rate"])


def settings(
    values: Mapping[str, Score],
    *,
    trials: int = 12,
    sign: int = 1,
    spaces: Mapping[str, SearchSpace] = SPACES,
    order: Callable[[int], Iterable[int]] = range,
) -> TrainingSettings:
    """All methods at random settings, those with a score trained to the first rung."""
    together, draw = TrainingSettings(), random.Random(0)
    for method, one in spaces.items():
        history = History(one.distributions, higher_is_better=sign == 1, learns_from_rungs=True, best=50, recent=100)
        together.join(method, one, history, higher_is_better=sign == 1)
        if method not in values:
            continue
        drawn = [
            {name: axis_of(each).value(draw.random()) for name, each in one.distributions.items()}
            for _ in range(trials)
        ]
        for params in drawn:
            history.start(params, {})
        for number in order(trials):
            params = drawn[number]
            share = axis_of(one.distributions["learning_rate"]).place(params["learning_rate"])
            history.report(number, 0, sign * values[method](share, params["batch_size"]))
    return together


def asked(together: TrainingSettings, method: str, count: int = 40) -> list[dict[str, Any]]:
    return [together.propose(method, seed) for seed in range(count)]


@pytest.mark.parametrize("sign", [1, -1])
def test_where_other_methods_did_well_is_tried_in_the_methods_own_range(sign: int) -> None:
    for best in (0.1, 0.9):
        together = settings({m: lambda rate, batch, best=best: -abs(rate - best) for m in ("lora", "ia3")}, sign=sign)  # type: ignore[misc]
        found = [place("prefix", params) for params in asked(together, "prefix")]
        assert abs(statistics.median(found) - best) < 0.25


def test_choices_are_told_as_well() -> None:
    together = settings({"lora": lambda rate, batch: -batch, "ia3": lambda rate, batch: -batch})
    sizes = [params["batch_size"] for params in asked(together, "prefix")]
    assert sizes.count(8) > 2 * sizes.count(32)


def test_scores_are_compared_within_a_method_alone() -> None:
    one = settings({"lora": lambda rate, batch: rate, "ia3": lambda rate, batch: rate})
    other = settings({"lora": lambda rate, batch: rate, "ia3": lambda rate, batch: 100 + 7 * rate})
    assert asked(one, "prefix") == asked(other, "prefix")


def test_what_is_proposed_does_not_depend_on_the_order_of_the_results() -> None:
    score = {"lora": lambda rate, batch: rate + batch, "ia3": lambda rate, batch: rate}
    assert asked(settings(score), "prefix") == asked(settings(score, order=lambda n: reversed(range(n))), "prefix")


def test_there_is_nothing_to_say_before_the_first_results_and_of_defaults() -> None:
    assert settings({}).propose("prefix", 0) == {}
    assert settings({"lora": lambda rate, batch: rate}, trials=1).propose("prefix", 0) == {}
    assert settings({"lora": lambda rate, batch: rate}, trials=2).propose("prefix", 0)


def test_only_what_more_than_half_of_the_methods_have_is_shared() -> None:
    spaces = {
        "lora": space(1e-5, dropout=FloatDistribution(0.0, 0.5), init=CategoricalDistribution(["a", "b"])),
        "ia3": space(1e-3, dropout=FloatDistribution(0.0, 0.1), init=CategoricalDistribution(["a", "c"])),
        "prefix": space(1e-4, init=CategoricalDistribution(["a", "d"]), tokens=FloatDistribution(1, 2)),
    }
    together = settings({"lora": lambda rate, batch: rate}, spaces=spaces)
    assert set(together.propose("lora", 0)) == {"learning_rate", "batch_size", "dropout"}
    assert set(together.propose("prefix", 0)) == {"learning_rate", "batch_size"}
    alone = settings({"lora": lambda rate, batch: rate}, spaces={"lora": spaces["lora"]})
    assert alone.propose("lora", 0) == {}


def test_trials_are_compared_where_both_have_been() -> None:
    trials = [made(number, {}, {}, {}) for number in range(4)]
    reached = [{0: 0.5, 1: 0.6}, {0: 0.7}, {0: 0.1, 1: 0.7}, {0: math.nan}]
    for trial, values in zip(trials, reached, strict=True):
        trial.intermediate_values = values
    unit = math.sqrt(12)
    # beaten: the last; all others; the first, by its later value, and the last; none
    assert ranks(trials, 1) == pytest.approx([unit * (one / 5 - 0.5) for one in (2, 4, 3, 1)])
    assert ranks(trials[:1], 1) == [0.0]


def test_a_study_asks_for_shared_settings_until_its_sampler_looks_at_values() -> None:
    together = TrainingSettings()
    lora, ia3 = (
        Study(f"mail/{m}", SPACES[m], higher_is_better=True, storage=open_storage(None), seed=0, settings=together,
              constraints=lambda params: (params["batch_size"] - 16,))
        for m in ("lora", "ia3")
    )  # fmt: skip
    for number in range(10):
        _, params = lora.ask()
        lora.report(number, 0, params["learning_rate"])
    rates = [place("ia3", ia3.ask()[1]) for _ in range(10)]
    assert statistics.median(rates[number] for number in (1, 2, 4, 5, 7, 8)) > 0.7
    assert min(rates[number] for number in (3, 6, 9)) < 0.5
    assert ia3.ask()[1]["batch_size"] <= 16
    random_ones = Study("mail/ia3", SPACES["ia3"], higher_is_better=True, storage=open_storage(None), seed=0,
                        sampler="random", settings=together)  # fmt: skip
    alone = Study("mail/ia3", SPACES["ia3"], higher_is_better=True, storage=open_storage(None), seed=0,
                  sampler="random")  # fmt: skip
    assert [random_ones.ask() for _ in range(5)] == [alone.ask() for _ in range(5)]


def test_cma_es_is_not_loaded_for_other_samplers() -> None:
    code = "import orchestrator.search.core, sys; sys.exit('cmaes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
