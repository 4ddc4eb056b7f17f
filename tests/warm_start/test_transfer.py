"""Which configurations of earlier sweeps are chosen, and how they are moved into the present space."""

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.warm_start.earlier import EarlierTask, EarlierTrial, better_half
from orchestrator.warm_start.fit import fit_to_space, nearly_equal
from orchestrator.warm_start.task_metadata import TaskMetadata
from orchestrator.warm_start.transfer import Source, transfer_configurations
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


def trial(number: int, value: float, state: str = "complete", method: str = "lora", **changes: Any) -> EarlierTrial:
    params = {"rate": 1e-4 * (number + 1), "rank": 16, "place": "all", **changes}
    return EarlierTrial(trial=f"mail/{method}/{number}", method=method, params=params, state=state, value=value)


def source(name: str, trials: list[EarlierTrial], similarity: float = 1.0, *, higher_is_better: bool = True) -> Source:
    earlier = EarlierTask(
        sweep=name, task="mail", task_metadata=TaskMetadata(), higher_is_better=higher_is_better, read=lambda: trials
    )
    return Source(earlier, similarity, trials)


def chosen(*sources: Source, limit: int = 3) -> list[tuple[str, int]]:
    return [
        (entry.sweep, int(entry.trial.rpartition("/")[2]))
        for entry in transfer_configurations(SPACE, "lora", sources, limit)
    ]


def test_rank_of_best_trial_grows_with_the_number_of_trials() -> None:
    few = better_half([trial(0, 0.9)], "lora", higher_is_better=True)
    many = better_half([trial(n, n / 10) for n in range(4)], "lora", higher_is_better=True)
    assert [entry.rank for entry in few] == [1 / 2]
    assert [(entry.trial.value, entry.rank) for entry in many] == [
        (0.3, 4 / 5),
        (0.2, 3 / 5),
    ]  # the better half


def test_rank_counts_pruned_and_failed_trials_as_beaten() -> None:
    beaten = [trial(1, 0.99, "pruned"), trial(2, float("nan"), "failed"), trial(3, 0.98, "killed")]
    ranked = better_half([trial(0, 0.1), *beaten, trial(4, 0.99, method="ia3")], "lora", higher_is_better=True)
    assert [(entry.trial.trial, entry.rank) for entry in ranked] == [("mail/lora/0", 3 / 4)]


def test_choose_takes_lowest_value_of_minimized_metric() -> None:
    trials = [trial(0, 9.0, rate=1e-5), trial(1, 3.0, rate=1e-4), trial(2, 5.0, rate=1e-2)]
    assert chosen(source("a", trials, higher_is_better=False), limit=1) == [("a", 1)]


def test_choose_takes_best_of_each_sweep_before_any_second() -> None:
    rates = [1e-5, 1e-4, 1e-2, 3e-2]
    near = source("near", [trial(n, 1 - n / 10, rate=rate) for n, rate in enumerate(rates)], 0.9)
    far = source("far", [trial(n, 1 - n / 10, rate=rate * 2) for n, rate in enumerate(rates)], 0.6)
    assert chosen(far, near) == [("near", 0), ("far", 0), ("near", 1)]


def test_choose_never_compares_scores_of_different_tasks() -> None:
    hard = source("hard", [trial(n, 0.3 - n / 10, rate=10.0 ** (-5 + n)) for n in range(3)], 0.9)
    easy = source("easy", [trial(n, 0.99 - n / 100, rate=3 * 10.0 ** (-5 + n)) for n in range(3)], 0.8)
    assert chosen(easy, hard, limit=1) == [("hard", 0)]


def test_choose_skips_near_duplicates_and_the_default() -> None:
    trials = [trial(0, 0.9, rate=1.2e-3, rank=8), trial(1, 0.8, rate=1e-4), trial(2, 0.7, rate=1.1e-4, rank=17)]
    trials += [trial(n, 0.1 - n / 100) for n in range(3, 8)]
    assert chosen(source("a", trials)) == [("a", 1), ("a", 3)]


def test_choose_ignores_other_methods() -> None:
    assert chosen(source("a", [trial(0, 0.9, method="ia3")])) == []


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"rate": 0.5, "rank": 7, "place": "last", "other": 3}, {"rate": 1e-1, "rank": 8, "place": "last"}),
        (
            {"rate": "0.002", "rank": "64", "place": "1"},
            {"rate": 0.002, "rank": 64, "place": 1},
        ),  # texts of MLflow
        ({"rate": "0.002", "rank": "64.0", "place": "true"}, {"rate": 0.002, "rank": 64, "place": True}),
        ({"place": "nowhere"}, {"rate": 1e-3, "rank": 8, "place": "all"}),
        ({"rate": "NaN", "rank": "Infinity"}, {"rate": 1e-5, "rank": 4, "place": "all"}),
    ],
)
def test_fit_moves_configuration_to_the_nearest_point(params: dict[str, Any], expected: dict[str, Any]) -> None:
    fitted = fit_to_space(SPACE, params)
    assert fitted == expected
    assert {name: type(value) for name, value in fitted.items()} == {n: type(v) for n, v in expected.items()}


def test_fit_measures_distance_on_each_parameters_scale() -> None:
    base = {"rate": 1e-4, "rank": 16, "place": "all"}
    assert nearly_equal(SPACE, base, {**base, "rate": 1.5e-4})  # of four decades
    assert not nearly_equal(SPACE, base, {**base, "rate": 1.6e-4})
    assert not nearly_equal(SPACE, base, {**base, "rank": 20})
    assert not nearly_equal(SPACE, base, {**base, "place": 1})
