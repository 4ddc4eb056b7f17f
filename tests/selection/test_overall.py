"""A method for each task, one for all of them, and what that costs."""

from __future__ import annotations

import pytest

from orchestrator.selection.overall import Overall, overall

from .small_evidence import PERPLEXITY, result, selection

MAIL = selection(result("lora", 0.8, tied=True), others=(result("ia3", 0.7), result("prefix", 0.6)))
TALK = selection(
    result("ia3", 4.0, tied=True), others=(result("lora", 4.2), result("prompt", 8.0)),
    task="talk", metric=PERPLEXITY,
)  # fmt: skip


def test_overall_recommends_the_smallest_mean_loss() -> None:
    found = overall([MAIL, TALK])
    assert found.per_task == {"mail": "lora", "talk": "ia3"}
    assert found.losses["lora"] == pytest.approx({"mail": 0.0, "talk": 0.05})
    assert found.losses["ia3"] == pytest.approx({"mail": 0.5, "talk": 0.0})
    assert found.recommended == "lora"
    assert found.loss == pytest.approx(0.025)
    assert found.costs == pytest.approx({"mail": 0.0, "talk": 0.2})
    assert (
        found.reason
        == "lora has the smallest mean loss; it is worse than the choice per task by 0.200 perplexity on talk"
    )


def test_overall_shows_partly_scored_methods_in_the_matrix_alone() -> None:
    found = overall([MAIL, TALK])
    assert found.matrix["prefix"] == {"mail": 0.6}
    assert set(found.matrix) == {"lora", "ia3", "prefix", "prompt"}


def test_overall_method_that_is_best_everywhere_has_no_loss() -> None:
    found = overall([MAIL, selection(result("lora", 0.9, tied=True), others=(result("ia3", 0.8),), task="post")])
    assert (found.recommended, found.loss) == ("lora", 0.0)
    assert found.reason == "lora is recommended for every task"


def test_overall_names_methods_that_are_tied_everywhere() -> None:
    close = selection(
        result("ia3", 0.81, tied=True), result("lora", 0.80, tied=True), others=(result("x", 0.1),), task="post"
    )
    found = overall([MAIL, close])
    assert found.tied_everywhere == ("lora",)
    assert found.reason.startswith("lora is tied with the best on every task")


def test_overall_is_empty_without_a_common_method() -> None:
    found = overall([MAIL, selection(result("full", 0.9, tied=True), task="post")])
    assert (found.recommended, found.costs) == ("", {})


def test_overall_survives_json() -> None:
    found = overall([MAIL, TALK])
    assert Overall.from_dict(found.to_dict()) == found
