import itertools
import math

import pytest

from orchestrator.common.metric import Metric
from orchestrator.tracking.promotion_policy import AliasHolders, Promotion, ScoredVersion, alias_holders
from orchestrator.tracking.versions import promotion_tag, scored_version


def version(
    number: int, score: float, half: float = 0.0, *, data: str = "a", metric: str = "macro_f1", up: bool = True,
    sweep: str = "", look: int = 1, role: bool = True, able: bool = True, promoted: tuple[Promotion, ...] = (),
) -> ScoredVersion:  # fmt: skip
    return ScoredVersion(
        version=number,
        mean_score=score,
        interval=(score - half, score + half),
        metric=Metric(name=metric, direction="maximize" if up else "minimize"),
        data_digest=data,
        sweep=sweep,
        look=look,
        recommended=role,
        beats_baseline=able,
        promotions=promoted,
    )


def by(*entries: tuple[int, int] | tuple[int, int, bool]) -> tuple[Promotion, ...]:
    return tuple(Promotion(*entry) for entry in entries)


@pytest.mark.parametrize(
    ("versions", "champion"),
    [
        ([version(1, 0.1)], 1),
        ([version(1, 0.5), version(2, 0.6)], 2),
        ([version(1, 0.5), version(2, 0.5)], 1),
        ([version(1, 0.5), version(2, 0.4), version(3, 0.45)], 1),
        ([version(1, 0.5), version(2, 0.9, data="b"), version(3, 0.6)], 3),
        ([version(1, 0.5), version(2, 0.9, metric="accuracy")], 1),
        ([version(1, 9.0, up=False), version(2, 8.0, up=False), version(3, 8.5, up=False)], 2),
        ([version(1, float("nan")), version(2, 0.5)], 1),
        ([version(1, 0.5), version(2, 0.6, float("nan"))], 1),
        # sqrt(0.03^2 + 0.04^2) = 0.05 is what a lead has to exceed
        ([version(1, 0.5, 0.03), version(2, 0.549, 0.04)], 1),
        ([version(1, 0.5, 0.03), version(2, 0.551, 0.04)], 2),
        ([version(1, 9.0, 0.3, up=False), version(2, 8.51, 0.4, up=False)], 1),
        ([version(1, 9.0, 0.3, up=False), version(2, 8.49, 0.4, up=False)], 2),
        # not significant one by one, though the last is far above the first
        ([version(1, 0.5, 0.03), version(2, 0.54, 0.03), version(3, 0.58, 0.03)], 3),
        ([version(1, 0.5, 0.03), version(2, 0.55, 0.03), version(3, 0.58, 0.03)], 2),
        # a sweep's own versions do not challenge each other, those of others do
        ([version(1, 0.5, sweep="s"), version(2, 0.9, sweep="s", role=False)], 1),
        ([version(1, 0.5, sweep="s"), version(2, 0.9, sweep="t")], 2),
        # but those of its next look do
        ([version(1, 0.5, sweep="s"), version(2, 0.9, sweep="s", look=2)], 2),
        # promotions by a user
        ([version(1, 0.5), version(2, 0.4, promoted=by((1, 2)))], 2),
        ([version(1, 0.5), version(2, 0.3, promoted=by((1, 2))), version(3, 0.4)], 3),
        ([version(1, 0.5, promoted=by((1, 2))), version(2, 0.6), version(3, 0.55)], 3),
        ([version(1, 0.5), version(2, 0.4, promoted=by((1, 3))), version(3, 0.3, promoted=by((2, 3)))], 3),
        ([version(1, 0.5), version(2, 0.4, promoted=by((2, 3))), version(3, 0.3, promoted=by((1, 3)))], 2),
        # two at once, under one number: the newer version
        ([version(1, 0.5), version(2, 0.4, promoted=by((1, 3))), version(3, 0.3, promoted=by((1, 3)))], 3),
    ],
)
def test_promotion_policy_champion_is_beaten_or_replaced_by_promotion(
    versions: list[ScoredVersion], champion: int
) -> None:
    for order in itertools.permutations(versions):
        holders = alias_holders(order)
        assert holders
        assert holders.champion == champion


def test_promotion_policy_lead_of_asymmetric_intervals() -> None:
    """The difference of two intervals that are not symmetric, by hand."""
    metric = Metric(name="m")
    first = ScoredVersion(version=1, mean_score=0.5, interval=(0.2, 0.53), metric=metric, data_digest="a")
    second = ScoredVersion(version=2, mean_score=0.6, interval=(0.56, 0.9), metric=metric, data_digest="a")
    lead = second.lead(first)
    assert lead.difference == pytest.approx(0.1)
    assert lead.low == pytest.approx(0.1 - 0.05)
    assert lead.high == pytest.approx(0.1 + math.hypot(0.3, 0.3))
    assert second.beats(first)
    assert not first.beats(second)


@pytest.mark.parametrize(("looks", "level"), [((1, 1), "95 %"), ((2, 2), "97.5 %"), ((1, 2), "at least 95 %")])
def test_promotion_policy_lead_has_the_level_of_its_intervals(looks: tuple[int, int], level: str) -> None:
    first, second = (version(k, 0.5, 0.1, look=look) for k, look in enumerate(looks))
    assert first.lead(second).level_text == second.lead(first).level_text == level


def test_promotion_policy_rollback_returns_to_earlier_champions() -> None:
    three = [version(1, 0.5), version(2, 0.6), version(3, 0.7)]
    assert alias_holders(three) == AliasHolders(3, 2, 2)
    back = [three[0], version(2, 0.6, promoted=by((1, 3, True))), three[2]]
    assert alias_holders(back) == AliasHolders(2, 3, 1)
    further = [version(1, 0.5, promoted=by((2, 3, True))), *back[1:]]
    assert alias_holders(further) == AliasHolders(1, 3, None)
    assert alias_holders([*further, version(4, 0.55)]) == AliasHolders(4, 3, 1)


def test_promotion_policy_challenger_is_the_newest_recommended_version() -> None:
    found = [version(1, 0.5, sweep="s"), version(2, 0.5, sweep="s", role=False)]
    assert alias_holders(found) == AliasHolders(1, 2, None)
    found += [version(3, 0.4, sweep="t"), version(4, 0.4, sweep="t", role=False)]
    assert alias_holders(found) == AliasHolders(1, 3, None)


def test_promotion_policy_without_versions_has_no_holders() -> None:
    assert alias_holders([]) is None


def test_promotion_reads_back_from_its_tag() -> None:
    recorded = by((1, 7), (12, 9, True))
    tags = {"mean_score": "0.5", "interval_low": "0.4", "interval_high": "0.6"}
    tags |= {"metric": "m", "higher_is_better": "true"}
    tags |= {"data_digest": "a", "sweep": "s", "title_of_mine": "king", "title_0003": "unknown words"}
    assert scored_version(7, {**tags, **dict(map(promotion_tag, recorded))}).promotions == recorded


def test_policy_gives_no_alias_to_what_is_no_better_than_the_baseline() -> None:
    constant = version(1, 0.9, able=False)
    assert alias_holders([constant]) is None
    assert alias_holders([constant, version(2, 0.5)]) == AliasHolders(2)
    assert alias_holders([version(1, 0.5), version(2, 0.9, able=False)]) == AliasHolders(1), "and no challenger"
    promoted = version(1, 0.3, able=False, promoted=by((1, 1)))
    assert alias_holders([promoted]) == AliasHolders(1), "by a user alone"
    assert alias_holders([promoted, version(2, 0.5)]) == AliasHolders(2, None, 1)
