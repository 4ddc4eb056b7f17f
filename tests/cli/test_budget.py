"""What a budget means in lane time and money, before a sweep and after it."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cli.output.budget import budget_text, cost_text, search_lines, spent_text
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
def test_budget_money_limits_lane_time(limits: dict[str, Any], seconds: float | None) -> None:
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
        ({"trials": 3, "cost_per_lane_hour": 2.0}, "3 trials", "2 per lane-hour; set budget.money to limit it"),
    ],
)
def test_budget_text_shows_limits_and_cost(limits: dict[str, Any], words: str, cost: str) -> None:
    assert budget_text(budget(**limits)) == words
    assert cost_text(budget(**limits)) == cost


def test_spent_text_shows_cost_where_a_rate_is_known() -> None:
    assert spent_text(1800, budget(trials=1)) == "0.50 lane-hours"
    assert spent_text(1800, budget(trials=1, cost_per_lane_hour=3.0)) == "0.50 lane-hours, 1.50 of money"


def test_search_lines_show_sampler_allocation_and_limits() -> None:
    assert list(search_lines(SearchConfig())) == ["search    tpe · race"]
    search = SearchConfig(sampler="gp", early_stopping=False, allocation="round_robin", constraints=["adapter <= 1 MB"])
    assert list(search_lines(search)) == [
        "search    gp · round robin · no early stopping",
        "limits    adapter <= 1 MB · no trial exceeds them",
    ]
