"""The default first, then at most a third from earlier sweeps, and each point of a list once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.search.grid import MOST, unlistable
from orchestrator.search.queue import Queue
from search_spaces._base import SearchSpace

WIDE = SearchSpace(
    distributions={"rate": FloatDistribution(0.0, 1.0), "rank": IntDistribution(1, 64)},
    default={"rate": 0.5, "rank": 8},
    sources={},
)
SMALL = SearchSpace(
    distributions={"rank": IntDistribution(1, 4), "where": CategoricalDistribution(["a", "b"])},
    default={"rank": 2, "where": "a"},
    sources={},
)


def taken(queue: Queue, count: int) -> list[Any]:
    return [queue.at(number) for number in range(count)]


def test_at_most_a_third_of_any_first_trials_comes_from_the_prior() -> None:
    prior = [{"rate": 0.01 * place, "rank": 1} for place in range(20)]
    asked = taken(Queue(WIDE, prior), 40)
    assert asked[0] == WIDE.default
    assert [params for params in asked[1:] if params] == prior[: sum(bool(params) for params in asked[1:])]
    for count in range(1, 41):
        from_prior = sum(params is not None for params in asked[1:count])
        assert from_prior <= -(-count // 3)
        assert from_prior >= (count - 1) // 3


def test_when_the_prior_is_over_the_sampler_has_every_turn() -> None:
    assert [params is None for params in taken(Queue(WIDE, [{"rate": 0.1}, {"rate": 0.2}]), 9)] == [
        False, False, True, False, True, True, True, True, True,
    ]  # fmt: skip


def test_a_prior_from_another_space_moves_to_the_edge_and_nothing_is_tried_twice() -> None:
    prior: list[Mapping[str, Any]] = [
        {"rate": 9.0, "rank": 1000, "dropout": 0.1},
        {"rate": 1.0, "rank": 64},
        {"rate": 0.5},
        {"rank": 9},
    ]
    asked = [params for params in taken(Queue(WIDE, prior), 30) if params]
    assert asked == [WIDE.default, {"rate": 1.0, "rank": 64}, {"rate": 0.5, "rank": 9}]


def test_what_is_not_allowed_never_comes() -> None:
    def allowed(params: Mapping[str, Any]) -> bool:
        return params["rank"] <= 2

    queue = Queue(SMALL, [{"rank": 3}, {"rank": 1}], allowed=allowed)
    assert queue.length == 4
    asked = taken(queue, 4)
    assert asked[:2] == [SMALL.default, {"rank": 1, "where": "a"}]
    assert all(params["rank"] <= 2 for params in asked)


def test_a_list_has_every_point_once_in_an_order_of_its_seed() -> None:
    orders = []
    for seed in (0, 0, 1):
        queue = Queue(SMALL, [{"rank": 4, "where": "b"}, {"rank": 1, "where": "b"}], seed=seed)
        assert queue.length == 8
        asked = taken(queue, 8)
        assert [asked[number] for number in (0, 1, 3)] == [
            SMALL.default,
            {"rank": 4, "where": "b"},
            {"rank": 1, "where": "b"},
        ]
        assert len({tuple(params.values()) for params in asked}) == 8
        orders.append(asked)
    assert orders[0] == orders[1] != orders[2]


def test_a_space_of_one_point_is_a_list() -> None:
    queue = Queue(SearchSpace(distributions={}, default={}, sources={}))
    assert (queue.length, queue.at(0)) == (1, {})


def test_a_grid_lists_what_a_model_would_search() -> None:
    space = SearchSpace(
        distributions={"a": IntDistribution(1, 40), "b": IntDistribution(1, 40)}, default={"a": 1, "b": 1}, sources={}
    )
    assert Queue(space).length is None
    assert Queue(space, grid=True).length == 1600


@pytest.mark.parametrize(
    ("distributions", "name", "reason"),
    [
        ({"a": IntDistribution(1, 40), "b": FloatDistribution(0.0, 1.0)}, "b", "has no steps"),
        (
            {"a": IntDistribution(1, 9), "b": IntDistribution(1, MOST)},
            "b",
            "is one of several that make 900,000 points",
        ),
        ({"a": IntDistribution(1, MOST + 1)}, "a", "has no steps"),
    ],
)
def test_what_is_no_grid_is_told(distributions: dict[str, Any], name: str, reason: str) -> None:
    found = unlistable(distributions)
    assert found is not None
    assert found[0] == name
    assert found[1].startswith(reason)


def test_what_is_a_grid_is_none() -> None:
    assert unlistable(SMALL.distributions) is None
