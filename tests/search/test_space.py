from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

import search_spaces
from orchestrator.common.errors import InputError
from orchestrator.search.grid import LISTED, points
from orchestrator.search.space import nearest, resolve
from search_spaces._base import SearchSpace

SPACE = SearchSpace(
    distributions={
        "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
        "rank": IntDistribution(2, 256, log=True),
        "layers": IntDistribution(2, 12, step=2),
        "targets": CategoricalDistribution(["attention", "all"]),
        "dropout": FloatDistribution(0.0, 0.5, step=0.1),
    },
    default={"learning_rate": 1e-3, "rank": 8, "layers": 6, "targets": "all", "dropout": 0.1},
    sources={},
)


@pytest.fixture(autouse=True)
def _one_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_spaces, "get", {"toy": SPACE}.__getitem__)


@pytest.mark.parametrize(
    ("name", "override", "distribution", "default"),
    [
        ("rank", {"choices": [4, 16]}, CategoricalDistribution([4, 16]), 4),
        ("rank", {"choices": [4, 8]}, CategoricalDistribution([4, 8]), 8),
        ("rank", {"low": 16, "high": 64}, IntDistribution(16, 64, log=True), 16),
        ("rank", {"high": 4}, IntDistribution(2, 4, log=True), 4),
        ("rank", {"low": 2, "high": 11, "step": 3}, IntDistribution(2, 11, step=3), 8),
        ("rank", {"value": 32}, CategoricalDistribution([32]), 32),
        ("layers", {"low": 4, "high": 4}, IntDistribution(4, 4, step=2), 4),
        ("layers", {"log": True}, IntDistribution(2, 12, log=True), 6),
        ("learning_rate", {"low": 2e-3, "high": 1e-2, "log": True}, FloatDistribution(2e-3, 1e-2, log=True), 2e-3),
        ("learning_rate", {"low": 1, "high": 2, "log": False}, FloatDistribution(1, 2), 1.0),
        ("targets", {"choices": ["attention"]}, CategoricalDistribution(["attention"]), "attention"),
        ("targets", {"low": 1, "high": 3}, IntDistribution(1, 3), 1),
        ("targets", {"low": 0.5, "high": 3}, FloatDistribution(0.5, 3), 0.5),
        ("dropout", {"low": None, "high": 0.3, "step": None}, FloatDistribution(0.0, 0.3, step=0.1), 0.1),
    ],
)
def test_an_override_replaces_the_distribution_and_the_default_follows(
    name: str, override: dict[str, Any], distribution: BaseDistribution, default: Any
) -> None:
    space = resolve("toy", {name: override})
    assert space.distributions[name] == distribution
    assert space.default[name] == default
    untouched = {key: value for key, value in SPACE.default.items() if key != name}
    assert {key: space.default[key] for key in untouched} == untouched


def test_without_overrides_the_space_is_as_published() -> None:
    assert resolve("toy", {}) == SPACE


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("rang", {"value": 1}, "did you mean rank?"),
        ("zzzzzz", {"value": 1}, "known: dropout"),
        ("rank", {"choices": []}, "at least one"),
        ("rank", {"choices": "48"}, "must be a list"),
        ("rank", {"choices": [[1]]}, "cannot be a choice"),
        ("rank", {"low": 1.5}, "whole numbers"),
        ("rank", {"low": "1e-4"}, "must be a number"),
        ("rank", {"low": 300}, "low"),
        ("rank", {"lo": 3}, "unknown key 'lo'"),
        ("targets", {"low": 3}, "high is missing"),
        ("learning_rate", {"low": 0.0}, "log"),
    ],
)
def test_a_wrong_override_is_named(name: str, override: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve("toy", {name: override})
    (problem,) = caught.value.problems
    assert problem.where == f"toy.{name}"
    assert message in problem.message


def test_all_wrong_overrides_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        resolve("toy", {"rang": {"value": 1}, "rank": {"choices": []}})
    assert len(caught.value.lines()) == 2


@pytest.mark.parametrize(
    ("choices", "value", "expected"),
    [([True, False], 1, True), ([1, 2], True, 1), (["a", 4, 9], 5, 4), (["a", "b"], 5, "a"), ([None, 2], None, None)],
)
def test_the_nearest_choice(choices: list[Any], value: Any, expected: Any) -> None:
    assert nearest(CategoricalDistribution(choices), value) is expected


def test_a_distribution_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="SimpleNamespace"):
        nearest(SimpleNamespace(), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("distributions", "count"),
    [
        ({"a": CategoricalDistribution(["x", "y"]), "b": IntDistribution(1, 7, step=3)}, 6),
        ({"a": FloatDistribution(0.0, 0.3, step=0.1)}, 4),
        ({"a": FloatDistribution(0.5, 0.5)}, 1),
        ({"a": FloatDistribution(0.5, 0.6)}, None),
        ({"a": IntDistribution(1, LISTED, log=True)}, LISTED),
        ({"a": IntDistribution(1, LISTED + 1)}, None),
        ({"a": IntDistribution(1, 9), "b": IntDistribution(1, 8)}, None),
        ({}, 1),
    ],
)
def test_a_small_space_is_listed(distributions: dict[str, BaseDistribution], count: int | None) -> None:
    listed = points(distributions)
    assert (listed is None) if count is None else (listed is not None and len(listed) == count)
    for point in listed or []:
        for name, value in point.items():
            assert distributions[name]._contains(distributions[name].to_internal_repr(value))
