"""A method for each task, one for all of them, and what that costs."""

from __future__ import annotations

import pytest

from orchestrator.selection.overall import Overall, overall

from .small_evidence import entry, selection

MAIL = selection(entry("lora", 0.8, tied=True), others=(entry("ia3", 0.7), entry("prefix", 0.6)))
TALK = selection(
    entry("ia3", 4.0, tied=True), others=(entry("lora", 4.2), entry("prompt", 8.0)),
    task="talk", metric="perplexity", higher_is_better=False,
)  # fmt: skip


def test_one_method_for_all_loses_least_on_average() -> None:
    found = overall([MAIL, TALK])
    assert found.per_task == {"mail": "lora", "talk": "ia3"}
    assert found.losses["lora"] == pytest.approx({"mail": 0.0, "talk": 0.05})
    assert found.losses["ia3"] == pytest.approx({"mail": 0.5, "talk": 0.0})
    assert found.recommended == "lora"
    assert found.loss == pytest.approx(0.025)
    assert found.costs == pytest.approx({"mail": 0.0, "talk": 0.2})
    assert (
        found.reason
        == "lora loses least over all tasks: against the choice per task it costs 0.200 perplexity on talk."
    )


def test_who_was_not_scored_everywhere_is_in_the_matrix_and_nowhere_else() -> None:
    found = overall([MAIL, TALK])
    assert found.matrix["prefix"] == {"mail": 0.6}
    assert set(found.matrix) == {"lora", "ia3", "prefix", "prompt"}


def test_what_is_best_everywhere_costs_nothing() -> None:
    found = overall([MAIL, selection(entry("lora", 0.9, tied=True), others=(entry("ia3", 0.8),), task="post")])
    assert (found.recommended, found.loss) == ("lora", 0.0)
    assert "costs nothing" in found.reason


def test_a_method_that_is_tied_everywhere_is_said_to_be() -> None:
    close = selection(
        entry("ia3", 0.81, tied=True), entry("lora", 0.80, tied=True), others=(entry("x", 0.1),), task="post"
    )
    found = overall([MAIL, close])
    assert found.tied_everywhere == ("lora",)
    assert found.reason.startswith("lora may be the best on every task")


def test_without_a_method_in_common_there_is_none_for_all() -> None:
    found = overall([MAIL, selection(entry("full", 0.9, tied=True), task="post")])
    assert (found.recommended, found.costs) == ("", {})


def test_it_survives_the_journal() -> None:
    found = overall([MAIL, TALK])
    assert Overall.from_dict(found.to_dict()) == found
