"""Who gets the next piece of work, from made-up standings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from orchestrator.search.allocation import ALLOCATIONS, Arm, Equal, Race, RoundRobin


def arm(study: str, *bests: float, starts: int | None = None, cost: float | None = None, full: float = 10.0) -> Arm:
    count = len(bests) if starts is None else starts
    return Arm(study, count, full * count if cost is None else cost, full, bests)


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_every_allocation_chooses_among_those_that_have_work(name: str) -> None:
    allocation = ALLOCATIONS[name]()
    arms = [arm("mail/a", 0.9), arm("mail/b", 0.8), arm("mail/c"), arm("news/a", 0.1)]
    assert allocation.choose(arms, ()) is None
    for only in arms:
        assert allocation.choose(arms, {only.study}) == only.study
    assert allocation.choose(arms, {one.study for one in arms}) == allocation.choose(arms, [a.study for a in arms])


def test_round_robin_goes_over_tasks_within_a_turn() -> None:
    starts = Counter[str]()
    names = ["mail/a", "mail/b", "news/a", "news/b"]
    order = []
    for _ in range(8):
        chosen = RoundRobin().choose([arm(name, starts=starts[name]) for name in names], names)
        assert chosen is not None
        starts[chosen] += 1
        order.append(chosen)
    assert order == ["mail/a", "news/a", "mail/b", "news/b"] * 2


def test_equal_gives_the_same_time_and_not_the_same_number() -> None:
    arms = [arm("mail/cheap", starts=9, cost=90.0), arm("mail/dear", starts=1, cost=100.0)]
    assert Equal().choose(arms, {"mail/cheap", "mail/dear"}) == "mail/cheap"


def test_everyone_is_seen_at_the_top_before_anyone_is_preferred() -> None:
    arms = [arm("mail/a", 0.9), arm("mail/b", starts=0), arm("mail/c", starts=0)]
    assert Race().choose(arms, {"mail/a", "mail/b", "mail/c"}) == "mail/b"


def test_what_looks_better_gets_more_and_what_is_little_known_gets_its_turn() -> None:
    race = Race(exploration=0.5)
    ready = {"mail/a", "mail/b"}
    assert race.choose([arm("mail/a", 0.9, 0.9), arm("mail/b", 0.7, 0.7)], ready) == "mail/a"
    spent = arm("mail/a", *[0.9] * 30)
    assert race.choose([spent, arm("mail/b", 0.88)], ready) == "mail/b"


def test_tasks_share_the_cost() -> None:
    arms = [arm("mail/a", 0.9), arm("mail/b", 0.9), arm("news/a", 0.1, cost=5.0), arm("news/b", 0.1, cost=5.0)]
    assert str(Race().choose(arms, {one.study for one in arms})).startswith("news/")


def test_a_method_is_dropped_with_the_numbers_that_justify_it() -> None:
    race = Race(patience=3.0, window=2, noise=0.02)
    arms = [arm("mail/a", 0.8, 0.8, 0.8), arm("mail/b", 0.5, 0.5, 0.6, 0.6, 0.6), arm("mail/c", 0.5, 0.7)]
    dropped = race.dropped(arms)
    assert set(dropped) == {"mail/b"}
    why = dropped["mail/b"]
    assert (why.leader, why.leader_best, why.best, why.bound) == ("mail/a", 0.8, 0.6, 0.6)
    assert why.bound < why.leader_best - why.margin
    assert why.pulls == 5.0
    assert race.choose(arms, {"mail/b", "mail/c"}) == "mail/c"
    assert race.choose(arms, {"mail/b"}) == "mail/b"  # rather than nothing


def test_who_still_gains_is_not_dropped() -> None:
    arms = [arm("mail/a", 0.8, 0.8, 0.8), arm("mail/b", 0.3, 0.45, 0.6)]
    assert not Race(patience=3.0, window=2, noise=0.02).dropped(arms)


def test_a_method_that_was_dropped_comes_back_when_the_leader_no_longer_leads_by_so_much() -> None:
    race, behind = Race(patience=2.0, window=2), [0.5, 0.5, 0.5, 0.5]
    assert race.dropped([arm("mail/a", 0.8), arm("mail/b", *behind)])
    assert not race.dropped([arm("mail/a", 0.8), arm("mail/b", *behind, 0.79)])


def test_a_sweep_drops_and_readmits_in_its_journal(make_sweep: Any) -> None:
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
    names = [event.get("trial", "") for event in sweep.journal() if event["event"] in ("trial", "drop")]
    after = names[names.index("") + 1 :]
    assert len(after) >= 6
    assert {name.rpartition("/")[0] for name in after} == {"mail/good"}
