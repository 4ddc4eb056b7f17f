"""What a budget means in lane time and money, before a sweep and after it."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cli.output.budget import budget_words, cost_words, search_lines, spent_words
from orchestrator.config import Budget, SearchConfig


def budget(**limits: Any) -> Budget:
    return Budget.model_validate(limits)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"trials": 3}, None),
        ({"lane_hours": 2.0}, 7200.0),
        ({"money": 20.0, "cost_per_lane_hour": 2.5}, 8 * 3600.0),
        ({"money": 20.0, "cost_per_lane_hour": 2.5, "lane_hours": 3.0}, 3 * 3600.0),
        ({"money": 20.0, "cost_per_lane_hour": 2.5, "lane_hours": 30.0}, 8 * 3600.0),
        ({"trials": 3, "cost_per_lane_hour": 2.5}, None),
    ],
)
def test_money_is_a_limit_on_lane_time(limits: dict[str, Any], seconds: float | None) -> None:
    assert budget(**limits).lane_seconds == seconds


@pytest.mark.parametrize(
    ("limits", "words", "cost"),
    [
        ({"trials": 3, "wall_time": "90s"}, "3 trials or 1:30 of wall time", "no cost rate set (cost_per_lane_hour)"),
        (
            {"money": 20.0, "cost_per_lane_hour": 2.5},
            "20 of money (8 lane-hours)",
            "20 at most, at 2.5 per lane-hour",
        ),
        ({"lane_hours": 2.0, "cost_per_lane_hour": 0.5}, "2 lane-hours", "1 at most, at 0.5 per lane-hour"),
        ({"trials": 3, "cost_per_lane_hour": 2.0}, "3 trials", "2 per lane-hour; budget.money would bound it"),
    ],
)
def test_a_plan_says_what_a_budget_means(limits: dict[str, Any], words: str, cost: str) -> None:
    assert budget_words(budget(**limits)) == words
    assert cost_words(budget(**limits)) == cost


def test_what_was_spent_has_a_price_where_there_is_a_rate() -> None:
    assert spent_words(1800, budget(trials=1)) == "0.50 lane-hours"
    assert spent_words(1800, budget(trials=1, cost_per_lane_hour=3.0)) == "0.50 lane-hours, 1.50 of money"


def test_a_plan_says_how_the_search_goes() -> None:
    assert list(search_lines(SearchConfig())) == ["search    tpe · race"]
    told = SearchConfig(sampler="gp", early_stopping=False, allocation="round_robin", constraints=["adapter <= 1 MB"])
    assert list(search_lines(told)) == [
        "search    gp · round robin · nobody is stopped early",
        "limits    adapter <= 1 MB · nothing beyond is trained",
    ]
