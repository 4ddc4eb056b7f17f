from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

import search_spaces
from orchestrator.common.errors import InputError
from orchestrator.search.grid import MAX_LISTED_POINTS, points
from orchestrator.search.space import misfits, nearest, override_problems, resolve
from search_spaces._base import SearchSpace

SPACE = SearchSpace(
    distributions={
        "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
        "rank": IntDistribution(2, 256, log=True),
        "layers": IntDistribution(2, 12, step=2),
        "targets": CategoricalDistribution(["attention", "all"]),
        "dropout": FloatDistribution(0.0, 0.5, step=0.1),
        "sizes": CategoricalDistribution([4, 8]),
        "ratios": CategoricalDistribution([1, 0.5]),
        "text": CategoricalDistribution([""]),
    },
    default={
        "learning_rate": 1e-3,
        "rank": 8,
        "layers": 6,
        "targets": "all",
        "dropout": 0.1,
        "sizes": 4,
        "ratios": 1,
        "text": "",
    },
    sources={},
    switches=r"layer_\d+",
    texts=frozenset({"text"}),
)
INT, FLOAT = IntDistribution(2, 256, log=True), FloatDistribution(1e-5, 1e-1, log=True)
SIZES, RATIOS = CategoricalDistribution((4, 8, 16)), CategoricalDistribution((1, 0.5))
WORDS, SWITCH = CategoricalDistribution(("all", "query")), CategoricalDistribution((True, False))


@pytest.fixture(autouse=True)
def _toy_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_spaces, "get", {"toy": SPACE}.__getitem__)


@pytest.mark.parametrize(
    ("name", "override", "distribution", "default"),
    [
        ("rank", {"choices": [4, 16]}, CategoricalDistribution([4, 16]), 4),
        ("rank", {"choices": [4, 8]}, CategoricalDistribution([4, 8]), 8),
        ("rank", {"low": 16, "high": 64, "log": True}, IntDistribution(16, 64, log=True), 16),
        ("rank", {"low": 16, "high": 64}, IntDistribution(16, 64), 16),
        ("rank", {"low": 2, "high": 11, "step": 3}, IntDistribution(2, 11, step=3), 8),
        ("rank", {"value": 32}, CategoricalDistribution([32]), 32),
        ("layers", {"low": 4, "high": 8}, IntDistribution(4, 8, step=2), 6),
        ("layers", {"low": 2, "high": 12, "log": True}, IntDistribution(2, 12, log=True), 6),
        ("learning_rate", {"low": 2e-3, "high": 1e-2, "log": True}, FloatDistribution(2e-3, 1e-2, log=True), 2e-3),
        ("learning_rate", {"low": 1, "high": 2, "log": False}, FloatDistribution(1, 2), 1.0),
        ("targets", {"choices": ["attention"]}, CategoricalDistribution(["attention"]), "attention"),
        ("sizes", {"low": 1, "high": 3}, IntDistribution(1, 3), 3),
        ("ratios", {"low": 0.5, "high": 3, "log": True}, FloatDistribution(0.5, 3, log=True), 1.0),
        ("dropout", {"low": 0.0, "high": 0.3}, FloatDistribution(0.0, 0.3, step=0.1), 0.1),
        ("dropout", {"low": 0.0, "high": 0.3, "step": None}, FloatDistribution(0.0, 0.3, step=0.1), 0.1),
        ("layer_2", {"choices": [True, False]}, CategoricalDistribution([True, False]), True),
        ("text", {"value": "say it"}, CategoricalDistribution(["say it"]), "say it"),
    ],
)
def test_override_replaces_distribution_and_default_follows(
    name: str, override: dict[str, Any], distribution: BaseDistribution, default: Any
) -> None:
    space = resolve("toy", {name: override})
    assert space.distributions[name] == distribution
    assert space.default[name] == default
    others = {key: value for key, value in SPACE.default.items() if key != name}
    assert {key: space.default[key] for key in others} == others


def test_space_without_overrides_is_as_published() -> None:
    space = resolve("toy", {})
    assert (space.distributions, space.default) == (SPACE.distributions, SPACE.default)


def test_override_problems_have_key_paths_all_at_once() -> None:
    overrides: dict[str, Any] = {
        "rang": {"value": 1},
        "zzzzzz": {"value": 1},
        "rank": {"choices": [8, 1.5]},
        "targets": {"value": "al"},
    }
    with pytest.raises(InputError) as caught:
        resolve("toy", overrides)
    known = "learning_rate, rank, layers, targets, dropout, sizes, ratios, text"
    assert caught.value.lines() == [
        "search_space.toy.rang: unknown hyperparameter; did you mean rank?",
        f"search_space.toy.zzzzzz: unknown hyperparameter; known: {known}",
        "search_space.toy.rank.choices[1]: 1.5 is not possible; write a whole number",
        "search_space.toy.targets.value: 'al' is not possible; did you mean all?",
    ]
    assert override_problems("toy", {"rank": {"value": 4}, "layer_11": {"value": False}}) == []


def test_override_of_method_without_space_is_refused() -> None:
    with pytest.raises(InputError, match=r"search_space\.nothing: has no search space"):
        resolve("nothing", {})


@pytest.mark.parametrize(
    ("distribution", "override"),
    [
        (INT, {"low": 1, "high": 512, "log": True}),
        (INT, {"choices": [3, 5]}),
        (FLOAT, {"low": 1, "high": 2}),
        (FLOAT, {"choices": [1, 0.5]}),
        (SIZES, {"low": 4, "high": 64, "step": 4}),
        (SIZES, {"value": 32}),
        (RATIOS, {"value": 0.25}),
        (RATIOS, {"value": 2}),
        (WORDS, {"choices": ["query"]}),
        (SWITCH, {"value": True}),
    ],
)
def test_override_fits_parameter(distribution: BaseDistribution, override: dict[str, Any]) -> None:
    assert misfits(override, distribution) == []


@pytest.mark.parametrize(
    ("distribution", "override", "problems"),
    [
        (INT, {"low": 1.5, "high": 8}, {("low",): "1.5 is not possible; write a whole number"}),
        (
            INT,
            {"low": 1, "high": 8.5, "step": 0.5},
            {
                ("high",): "8.5 is not possible; write a whole number",
                ("step",): "0.5 is not possible; write a whole number",
            },
        ),
        (INT, {"value": True}, {("value",): "true is not possible; write a whole number"}),
        (
            FLOAT,
            {"choices": ["a", 1, True]},
            {
                ("choices", 0): "'a' is not possible; write a number",
                ("choices", 2): "true is not possible; write a number",
            },
        ),
        (SIZES, {"value": 0.5}, {("value",): "0.5 is not possible; write a whole number"}),
        (WORDS, {"low": 1, "high": 2}, {(): "cannot be a range; choose from all, query"}),
        (WORDS, {"choices": ["query", "key"]}, {("choices", 1): "'key' is not possible; choose from: all, query"}),
        (SWITCH, {"value": 1}, {("value",): "1 is not possible; choose from: true, false"}),
    ],
)
def test_override_that_misfits_is_refused_value_by_value(
    distribution: BaseDistribution, override: dict[str, Any], problems: dict[Any, str]
) -> None:
    assert dict(misfits(override, distribution)) == problems


@pytest.mark.parametrize(
    ("choices", "value", "expected"),
    [([True, False], 1, True), ([1, 2], True, 1), (["a", 4, 9], 5, 4), (["a", "b"], 5, "a"), ([None, 2], None, None)],
)
def test_nearest_choice(choices: list[Any], value: Any, expected: Any) -> None:
    assert nearest(CategoricalDistribution(choices), value) is expected


def test_nearest_refuses_unknown_distribution() -> None:
    with pytest.raises(TypeError, match="SimpleNamespace"):
        nearest(SimpleNamespace(), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("distributions", "count"),
    [
        ({"a": CategoricalDistribution(["x", "y"]), "b": IntDistribution(1, 7, step=3)}, 6),
        ({"a": FloatDistribution(0.0, 0.3, step=0.1)}, 4),
        ({"a": FloatDistribution(0.5, 0.5)}, 1),
        ({"a": FloatDistribution(0.5, 0.6)}, None),
        ({"a": IntDistribution(1, MAX_LISTED_POINTS, log=True)}, MAX_LISTED_POINTS),
        ({"a": IntDistribution(1, MAX_LISTED_POINTS + 1)}, None),
        ({"a": IntDistribution(1, 9), "b": IntDistribution(1, 8)}, None),
        ({}, 1),
    ],
)
def test_grid_lists_small_space(distributions: dict[str, BaseDistribution], count: int | None) -> None:
    listed = points(distributions)
    assert (listed is None) if count is None else (listed is not None and len(listed) == count)
    for point in listed or []:
        for name, value in point.items():
            assert distributions[name]._contains(distributions[name].to_internal_repr(value))
