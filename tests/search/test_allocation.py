"""Which method gets the next piece of work, from made-up arms."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.search.allocation import ALLOCATIONS, Arm, Equal, Race, RoundRobin


def arm(study: str, *bests: float, starts: int | None = None, cost: float | None = None, full: float = 10.0) -> Arm:
    count = len(bests) if starts is None else starts
    return Arm(study, count, full * count if cost is None else cost, full, bests)


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_allocation_chooses_among_ready_studies(name: str) -> None:
    allocation = ALLOCATIONS[name]()
    arms = [arm("mail/a", 0.9), arm("mail/b", 0.8), arm("mail/c"), arm("news/a", 0.1)]
    assert allocation.choose(arms, ()) is None
    for ready_arm in arms:
        assert allocation.choose(arms, {ready_arm.study}) == ready_arm.study
    assert allocation.choose(arms, {each.study for each in arms}) == allocation.choose(arms, [a.study for a in arms])


def test_round_robin_alternates_tasks_within_a_turn() -> None:
    starts = Counter[str]()
    studies = ["mail/a", "mail/b", "news/a", "news/b"]
    order = []
    for _ in range(8):
        study = RoundRobin().choose([arm(name, starts=starts[name]) for name in studies], studies)
        assert study is not None
        starts[study] += 1
        order.append(study)
    assert order == ["mail/a", "news/a", "mail/b", "news/b"] * 2


def test_equal_allocation_gives_equal_cost_instead_of_equal_counts() -> None:
    arms = [arm("mail/cheap", starts=9, cost=90.0), arm("mail/dear", starts=1, cost=100.0)]
    assert Equal().choose(arms, {"mail/cheap", "mail/dear"}) == "mail/cheap"


def test_race_brings_every_method_to_the_last_rung_first() -> None:
    arms = [arm("mail/a", 0.9), arm("mail/b", starts=0), arm("mail/c", starts=0)]
    assert Race().choose(arms, {"mail/a", "mail/b", "mail/c"}) == "mail/b"


def test_race_prefers_better_methods_and_explores_little_tried_ones() -> None:
    race = Race(exploration=0.5)
    ready = {"mail/a", "mail/b"}
    assert race.choose([arm("mail/a", 0.9, 0.9), arm("mail/b", 0.7, 0.7)], ready) == "mail/a"
    spent = arm("mail/a", *[0.9] * 30)
    assert race.choose([spent, arm("mail/b", 0.88)], ready) == "mail/b"


def test_race_goes_on_between_methods_without_a_mistake() -> None:
    arms = [replace(arm(study, 1.0, 1.0), noise=0.0) for study in ("mail/a", "mail/b")]
    arms.append(replace(arm("mail/c", 1.0, 1.0, cost=5.0), noise=0.0))
    assert Race().choose(arms, {each.study for each in arms}) == "mail/c"


def test_race_shares_cost_between_tasks() -> None:
    arms = [arm("mail/a", 0.9), arm("mail/b", 0.9), arm("news/a", 0.1, cost=5.0), arm("news/b", 0.1, cost=5.0)]
    assert str(Race().choose(arms, {each.study for each in arms})).startswith("news/")


def test_race_drops_method_with_numbers_that_justify_it() -> None:
    race = Race(patience=3.0, window=2, noise=0.02)
    arms = [arm("mail/a", 0.8, 0.8, 0.8), arm("mail/b", 0.5, 0.5, 0.6, 0.6, 0.6), arm("mail/c", 0.5, 0.7)]
    dropped = race.dropped(arms)
    assert set(dropped) == {"mail/b"}
    elimination = dropped["mail/b"]
    assert (elimination.leader, elimination.leader_best, elimination.best, elimination.bound) == (
        "mail/a",
        0.8,
        0.6,
        0.6,
    )
    assert elimination.bound < elimination.leader_best - elimination.margin
    assert elimination.pulls == 5.0
    assert race.choose(arms, {"mail/b", "mail/c"}) == "mail/c"
    assert race.choose(arms, {"mail/b"}) == "mail/b"  # rather than nothing


def test_race_keeps_method_that_still_gains() -> None:
    arms = [arm("mail/a", 0.8, 0.8, 0.8), arm("mail/b", 0.3, 0.45, 0.6)]
    assert not Race(patience=3.0, window=2, noise=0.02).dropped(arms)


def test_race_readmits_method_that_catches_up() -> None:
    race, slow = Race(patience=2.0, window=2), [0.5, 0.5, 0.5, 0.5]
    assert race.dropped([arm("mail/a", 0.8), arm("mail/b", *slow)])
    assert not race.dropped([arm("mail/a", 0.8), arm("mail/b", *slow, 0.79)])


def test_race_logs_drops_in_the_journal(make_sweep: Any) -> None:
    sweep = make_sweep(
        ("mail/good", "mail/bad"), allocation=Race(patience=2.0, window=1, warm_up=1), halving=None, trials=20
    )
    scores = {"mail/good": 0.9, "mail/bad": 0.3}
    while proposal := sweep.search.ask():
        for step in (25, 50, 100):
            sweep.search.report(proposal.key, step, scores[proposal.key.study] * step / 100)
    (drop,) = sweep.events("drop")
    assert drop["study"] == "mail/bad"
    assert (drop["best"], drop["leader"], drop["leader_best"]) == (0.3, "mail/good", 0.9)
    trials = [event.get("trial", "") for event in sweep.journal() if event["event"] in ("trial", "drop")]
    after = trials[trials.index("") + 1 :]
    assert len(after) >= 6
    assert {name.rpartition("/")[0] for name in after} == {"mail/good"}
