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
    choice = overall([MAIL, TALK])
    assert choice.per_task == {"mail": "lora", "talk": "ia3"}
    assert choice.losses["lora"] == pytest.approx({"mail": 0.0, "talk": 0.05})
    assert choice.losses["ia3"] == pytest.approx({"mail": 0.5, "talk": 0.0})
    assert choice.recommended == "lora"
    assert choice.loss == pytest.approx(0.025)
    assert choice.costs == pytest.approx({"mail": 0.0, "talk": 0.2})
    assert (
        choice.reason
        == "lora has the smallest mean loss; it is worse than the choice per task by 0.200 perplexity on talk"
    )


def test_overall_shows_partly_scored_methods_in_the_matrix_alone() -> None:
    choice = overall([MAIL, TALK])
    assert choice.matrix["prefix"] == {"mail": 0.6}
    assert set(choice.matrix) == {"lora", "ia3", "prefix", "prompt"}


def test_overall_method_that_is_best_everywhere_has_no_loss() -> None:
    choice = overall([MAIL, selection(result("lora", 0.9, tied=True), others=(result("ia3", 0.8),), task="post")])
    assert (choice.recommended, choice.loss) == ("lora", 0.0)
    assert choice.reason == "lora is recommended for every task"


def test_overall_names_methods_that_are_tied_everywhere() -> None:
    close = selection(
        result("ia3", 0.81, tied=True), result("lora", 0.80, tied=True), others=(result("x", 0.1),), task="post"
    )
    choice = overall([MAIL, close])
    assert choice.tied_everywhere == ("lora",)
    assert choice.reason.startswith("lora is tied with the best on every task")


def test_overall_is_empty_without_a_common_method() -> None:
    choice = overall([MAIL, selection(result("full", 0.9, tied=True), task="post")])
    assert (choice.recommended, choice.costs) == ("", {})


def test_overall_survives_json() -> None:
    choice = overall([MAIL, TALK])
    assert Overall.from_dict(choice.to_dict()) == choice
