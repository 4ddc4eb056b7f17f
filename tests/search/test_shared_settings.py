"""The settings of training that a task's methods share: the learning rate, and whatever else most of them have."""

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
from orchestrator.search.history import History, running_trial
from orchestrator.search.shared_settings import SharedSettings, scaled_ranks
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


def position(method: str, params: Mapping[str, Any]) -> float:
    return axis_of(SPACES[method].distributions["learning_rate"]).position(params["learning_rate"])


def settings(
    values: Mapping[str, Score],
    *,
    trials: int = 12,
    sign: int = 1,
    spaces: Mapping[str, SearchSpace] = SPACES,
    order: Callable[[int], Iterable[int]] = range,
) -> SharedSettings:
    """Shared settings of all methods at random values; those with a score have trained to the first rung."""
    together, draw = SharedSettings(), random.Random(0)
    for method, space in spaces.items():
        history = History(space.distributions, higher_is_better=sign == 1, learns_from_rungs=True, best=50, recent=100)
        together.join(method, space, history, higher_is_better=sign == 1)
        if method not in values:
            continue
        samples = [
            {name: axis_of(axis).value(draw.random()) for name, axis in space.distributions.items()}
            for _ in range(trials)
        ]
        for params in samples:
            history.start(params, {})
        for number in order(trials):
            params = samples[number]
            share = axis_of(space.distributions["learning_rate"]).position(params["learning_rate"])
            history.report(number, 0, sign * values[method](share, params["batch_size"]))
    return together


def proposals(together: SharedSettings, method: str, count: int = 40) -> list[dict[str, Any]]:
    return [together.propose(method, seed) for seed in range(count)]


@pytest.mark.parametrize("sign", [1, -1])
def test_settings_transfer_good_positions_into_each_methods_range(sign: int) -> None:
    for best in (0.1, 0.9):
        together = settings({m: lambda rate, batch, best=best: -abs(rate - best) for m in ("lora", "ia3")}, sign=sign)  # type: ignore[misc]
        positions = [position("prefix", params) for params in proposals(together, "prefix")]
        assert abs(statistics.median(positions) - best) < 0.25


def test_settings_transfer_choices_as_well() -> None:
    together = settings({"lora": lambda rate, batch: -batch, "ia3": lambda rate, batch: -batch})
    sizes = [params["batch_size"] for params in proposals(together, "prefix")]
    assert sizes.count(8) > 2 * sizes.count(32)


def test_settings_compare_scores_within_a_method_only() -> None:
    equal_scale = settings({"lora": lambda rate, batch: rate, "ia3": lambda rate, batch: rate})
    other_scale = settings({"lora": lambda rate, batch: rate, "ia3": lambda rate, batch: 100 + 7 * rate})
    assert proposals(equal_scale, "prefix") == proposals(other_scale, "prefix")


def test_settings_do_not_depend_on_the_order_of_results() -> None:
    score = {"lora": lambda rate, batch: rate + batch, "ia3": lambda rate, batch: rate}
    assert proposals(settings(score), "prefix") == proposals(
        settings(score, order=lambda n: reversed(range(n))), "prefix"
    )


def test_settings_propose_nothing_without_results_besides_defaults() -> None:
    assert settings({}).propose("prefix", 0) == {}
    assert settings({"lora": lambda rate, batch: rate}, trials=1).propose("prefix", 0) == {}
    assert settings({"lora": lambda rate, batch: rate}, trials=2).propose("prefix", 0)


def test_settings_share_what_more_than_half_the_methods_have() -> None:
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


def test_ranks_compare_at_the_last_common_rung() -> None:
    trials = [running_trial(number, {}, {}, {}) for number in range(4)]
    reached = [{0: 0.5, 1: 0.6}, {0: 0.7}, {0: 0.1, 1: 0.7}, {0: math.nan}]
    for trial, values in zip(trials, reached, strict=True):
        trial.intermediate_values = values
    unit = math.sqrt(12)
    # beaten: the last; all others; the first, by its later value, and the last; none
    assert scaled_ranks(trials, 1) == pytest.approx([unit * (wins / 5 - 0.5) for wins in (2, 4, 3, 1)])
    assert scaled_ranks(trials[:1], 1) == [0.0]


def test_study_uses_shared_settings_until_its_sampler_learns() -> None:
    together = SharedSettings()
    lora, ia3 = (
        Study(f"mail/{m}", SPACES[m], higher_is_better=True, storage=open_storage(None), seed=0, settings=together,
              constraints=lambda params: (params["batch_size"] - 16,))
        for m in ("lora", "ia3")
    )  # fmt: skip
    for number in range(10):
        _, params = lora.ask()
        lora.report(number, 0, params["learning_rate"])
    rates = [position("ia3", ia3.ask()[1]) for _ in range(10)]
    assert statistics.median(rates[number] for number in (1, 2, 4, 5, 7, 8)) > 0.7
    assert min(rates[number] for number in (3, 6, 9)) < 0.5
    assert ia3.ask()[1]["batch_size"] <= 16
    random_study = Study("mail/ia3", SPACES["ia3"], higher_is_better=True, storage=open_storage(None), seed=0,
                        sampler="random", settings=together)  # fmt: skip
    alone = Study("mail/ia3", SPACES["ia3"], higher_is_better=True, storage=open_storage(None), seed=0,
                  sampler="random")  # fmt: skip
    assert [random_study.ask() for _ in range(5)] == [alone.ask() for _ in range(5)]


def test_search_imports_cma_es_only_when_used() -> None:
    code = "import orchestrator.search.core, sys; sys.exit('cmaes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
