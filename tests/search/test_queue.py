"""The default first, then at most a third from earlier sweeps, and each point of a listed space once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.search.grid import MAX_GRID_POINTS, grid_problem
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


def configurations(queue: Queue, count: int) -> list[Any]:
    return [queue.at(number) for number in range(count)]


def test_queue_takes_at_most_a_third_from_the_prior() -> None:
    prior = [{"rate": 0.01 * index, "rank": 1} for index in range(20)]
    tried = configurations(Queue(WIDE, prior), 40)
    assert tried[0] == WIDE.default
    assert [params for params in tried[1:] if params] == prior[: sum(bool(params) for params in tried[1:])]
    for count in range(1, 41):
        from_prior = sum(params is not None for params in tried[1:count])
        assert from_prior <= -(-count // 3)
        assert from_prior >= (count - 1) // 3


def test_queue_gives_sampler_every_turn_after_the_prior() -> None:
    assert [params is None for params in configurations(Queue(WIDE, [{"rate": 0.1}, {"rate": 0.2}]), 9)] == [
        False, False, True, False, True, True, True, True, True,
    ]  # fmt: skip


def test_queue_moves_prior_into_the_space_without_duplicates() -> None:
    prior: list[Mapping[str, Any]] = [
        {"rate": 9.0, "rank": 1000, "dropout": 0.1},
        {"rate": 1.0, "rank": 64},
        {"rate": 0.5},
        {"rank": 9},
    ]
    tried = [params for params in configurations(Queue(WIDE, prior), 30) if params]
    assert tried == [WIDE.default, {"rate": 1.0, "rank": 64}, {"rate": 0.5, "rank": 9}]


def test_queue_leaves_out_configurations_that_are_not_allowed() -> None:
    def allowed(params: Mapping[str, Any]) -> bool:
        return params["rank"] <= 2

    queue = Queue(SMALL, [{"rank": 3}, {"rank": 1}], allowed=allowed)
    assert queue.length == 4
    tried = configurations(queue, 4)
    assert tried[:2] == [SMALL.default, {"rank": 1, "where": "a"}]
    assert all(params["rank"] <= 2 for params in tried)


def test_queue_lists_every_point_once_shuffled_by_seed() -> None:
    orders = []
    for seed in (0, 0, 1):
        queue = Queue(SMALL, [{"rank": 4, "where": "b"}, {"rank": 1, "where": "b"}], seed=seed)
        assert queue.length == 8
        tried = configurations(queue, 8)
        assert [tried[number] for number in (0, 1, 3)] == [
            SMALL.default,
            {"rank": 4, "where": "b"},
            {"rank": 1, "where": "b"},
        ]
        assert len({tuple(params.values()) for params in tried}) == 8
        orders.append(tried)
    assert orders[0] == orders[1] != orders[2]


def test_queue_lists_space_of_one_point() -> None:
    queue = Queue(SearchSpace(distributions={}, default={}, sources={}))
    assert (queue.length, queue.at(0)) == (1, {})


def test_queue_lists_large_space_for_grid_sampler() -> None:
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
            {"a": IntDistribution(1, 9), "b": IntDistribution(1, MAX_GRID_POINTS)},
            "b",
            "is one of several parameters that make 900,000 points",
        ),
        ({"a": IntDistribution(1, MAX_GRID_POINTS + 1)}, "a", "has no steps"),
    ],
)
def test_grid_problem_names_parameter_and_reason(distributions: dict[str, Any], name: str, reason: str) -> None:
    problem = grid_problem(distributions)
    assert problem is not None
    assert problem[0] == name
    assert problem[1].startswith(reason)


def test_grid_problem_is_none_for_listable_space() -> None:
    assert grid_problem(SMALL.distributions) is None
