"""Which configurations are taken, and how they are moved into the present space."""

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.warm_start.choose import Source, choose
from orchestrator.warm_start.earlier import Earlier, Tried, ranked
from orchestrator.warm_start.fit import fitted, nearly_same
from orchestrator.warm_start.task_metadata import TaskMetadata
from search_spaces._base import SearchSpace

SPACE = SearchSpace(
    distributions={
        "rate": FloatDistribution(1e-5, 1e-1, log=True),
        "rank": IntDistribution(4, 64, step=4),
        "place": CategoricalDistribution(["all", "last", 1, True]),
    },
    default={"rate": 1e-3, "rank": 8, "place": "all"},
    sources={},
)


def tried(number: int, value: float, state: str = "complete", method: str = "lora", **params: Any) -> Tried:
    said = {"rate": 1e-4 * (number + 1), "rank": 16, "place": "all", **params}
    return Tried(trial=f"mail/{method}/{number}", method=method, params=said, state=state, value=value)


def source(name: str, trials: list[Tried], similarity: float = 1.0, *, higher_is_better: bool = True) -> Source:
    earlier = Earlier(
        sweep=name, task="mail", task_metadata=TaskMetadata(), higher_is_better=higher_is_better, read=lambda: trials
    )
    return Source(earlier, similarity, trials)


def taken(*sources: Source, most: int = 3) -> list[tuple[str, int]]:
    return [(one.sweep, int(one.trial.rpartition("/")[2])) for one in choose(SPACE, "lora", sources, most)]


def test_the_best_of_many_stands_higher_than_the_best_of_few() -> None:
    few = ranked([tried(0, 0.9)], "lora", higher_is_better=True)
    many = ranked([tried(n, n / 10) for n in range(4)], "lora", higher_is_better=True)
    assert [one.rank for one in few] == [1 / 2]
    assert [(one.trial.value, one.rank) for one in many] == [(0.3, 4 / 5), (0.2, 3 / 5)]  # the worse half is no use


def test_what_was_stopped_or_failed_is_beaten_and_what_was_interrupted_says_nothing() -> None:
    others = [tried(1, 0.99, "pruned"), tried(2, float("nan"), "failed"), tried(3, 0.98, "killed")]
    found = ranked([tried(0, 0.1), *others, tried(4, 0.99, method="ia3")], "lora", higher_is_better=True)
    assert [(one.trial.trial, one.rank) for one in found] == [("mail/lora/0", 3 / 4)]


def test_where_less_is_better_the_least_is_the_best() -> None:
    trials = [tried(0, 9.0, rate=1e-5), tried(1, 3.0, rate=1e-4), tried(2, 5.0, rate=1e-2)]
    assert taken(source("a", trials, higher_is_better=False), most=1) == [("a", 1)]


def test_each_sweep_gives_its_best_before_any_gives_a_second() -> None:
    rates = [1e-5, 1e-4, 1e-2, 3e-2]
    near = source("near", [tried(n, 1 - n / 10, rate=rate) for n, rate in enumerate(rates)], 0.9)
    far = source("far", [tried(n, 1 - n / 10, rate=rate * 2) for n, rate in enumerate(rates)], 0.6)
    assert taken(far, near) == [("near", 0), ("far", 0), ("near", 1)]


def test_scores_of_different_tasks_are_never_compared() -> None:
    hard = source("hard", [tried(n, 0.3 - n / 10, rate=10.0 ** (-5 + n)) for n in range(3)], 0.9)
    easy = source("easy", [tried(n, 0.99 - n / 100, rate=3 * 10.0 ** (-5 + n)) for n in range(3)], 0.8)
    assert taken(easy, hard, most=1) == [("hard", 0)]


def test_what_is_nearly_the_default_or_nearly_taken_is_passed_over() -> None:
    trials = [tried(0, 0.9, rate=1.2e-3, rank=8), tried(1, 0.8, rate=1e-4), tried(2, 0.7, rate=1.1e-4, rank=17)]
    trials += [tried(n, 0.1 - n / 100) for n in range(3, 8)]
    assert taken(source("a", trials)) == [("a", 1), ("a", 3)]


def test_another_method_gives_nothing() -> None:
    assert taken(source("a", [tried(0, 0.9, method="ia3")])) == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"rate": 0.5, "rank": 7, "place": "last", "other": 3}, {"rate": 1e-1, "rank": 8, "place": "last"}),
        ({"rate": "0.002", "rank": "64", "place": "1"}, {"rate": 0.002, "rank": 64, "place": 1}),  # as MLflow has it
        ({"rate": "0.002", "rank": "64.0", "place": "true"}, {"rate": 0.002, "rank": 64, "place": True}),
        ({"place": "nowhere"}, {"rate": 1e-3, "rank": 8, "place": "all"}),
        ({"rate": "NaN", "rank": "Infinity"}, {"rate": 1e-5, "rank": 4, "place": "all"}),
    ],
)
def test_a_configuration_is_moved_to_the_nearest_point(said: dict[str, Any], expected: dict[str, Any]) -> None:
    found = fitted(SPACE, said)
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in expected.items()}


def test_nearness_is_measured_along_each_axis_by_its_own_scale() -> None:
    base = {"rate": 1e-4, "rank": 16, "place": "all"}
    assert nearly_same(SPACE, base, {**base, "rate": 1.5e-4})  # of four decades
    assert not nearly_same(SPACE, base, {**base, "rate": 1.6e-4})
    assert not nearly_same(SPACE, base, {**base, "rank": 20})
    assert not nearly_same(SPACE, base, {**base, "place": 1})
