import itertools
import math

import pytest

from orchestrator.tracking.promotion_policy import Candidate, Promotion, Titles, titles
from orchestrator.tracking.versions import candidate as read
from orchestrator.tracking.versions import promotion_tag


def candidate(
    version: int, score: float, half: float = 0.0, *, data: str = "a", metric: str = "macro_f1", up: bool = True,
    sweep: str = "", role: bool = True, promoted: tuple[Promotion, ...] = (),
) -> Candidate:  # fmt: skip
    return Candidate(
        version=version,
        score=score,
        interval=(score - half, score + half),
        metric=metric,
        higher_is_better=up,
        data_digest=data,
        sweep=sweep,
        recommended=role,
        promotions=promoted,
    )


def said(*entries: tuple[int, int] | tuple[int, int, bool]) -> tuple[Promotion, ...]:
    return tuple(Promotion(*entry) for entry in entries)


@pytest.mark.parametrize(
    ("candidates", "version"),
    [
        ([candidate(1, 0.1)], 1),
        ([candidate(1, 0.5), candidate(2, 0.6)], 2),
        ([candidate(1, 0.5), candidate(2, 0.5)], 1),
        ([candidate(1, 0.5), candidate(2, 0.4), candidate(3, 0.45)], 1),
        ([candidate(1, 0.5), candidate(2, 0.9, data="b"), candidate(3, 0.6)], 3),
        ([candidate(1, 0.5), candidate(2, 0.9, metric="accuracy")], 1),
        ([candidate(1, 9.0, up=False), candidate(2, 8.0, up=False), candidate(3, 8.5, up=False)], 2),
        ([candidate(1, float("nan")), candidate(2, 0.5)], 1),
        ([candidate(1, 0.5), candidate(2, 0.6, float("nan"))], 1),
        # sqrt(0.03^2 + 0.04^2) = 0.05 is what a lead has to exceed
        ([candidate(1, 0.5, 0.03), candidate(2, 0.549, 0.04)], 1),
        ([candidate(1, 0.5, 0.03), candidate(2, 0.551, 0.04)], 2),
        ([candidate(1, 9.0, 0.3, up=False), candidate(2, 8.51, 0.4, up=False)], 1),
        ([candidate(1, 9.0, 0.3, up=False), candidate(2, 8.49, 0.4, up=False)], 2),
        # not beyond doubt one by one, though the last is far above the first
        ([candidate(1, 0.5, 0.03), candidate(2, 0.54, 0.03), candidate(3, 0.58, 0.03)], 3),
        ([candidate(1, 0.5, 0.03), candidate(2, 0.55, 0.03), candidate(3, 0.58, 0.03)], 2),
        # a sweep's own versions do not challenge each other, those of others do
        ([candidate(1, 0.5, sweep="s"), candidate(2, 0.9, sweep="s", role=False)], 1),
        ([candidate(1, 0.5, sweep="s"), candidate(2, 0.9, sweep="t")], 2),
        # a person's word
        ([candidate(1, 0.5), candidate(2, 0.4, promoted=said((1, 2)))], 2),
        ([candidate(1, 0.5), candidate(2, 0.3, promoted=said((1, 2))), candidate(3, 0.4)], 3),
        ([candidate(1, 0.5, promoted=said((1, 2))), candidate(2, 0.6), candidate(3, 0.55)], 3),
        ([candidate(1, 0.5), candidate(2, 0.4, promoted=said((1, 3))), candidate(3, 0.3, promoted=said((2, 3)))], 3),
        ([candidate(1, 0.5), candidate(2, 0.4, promoted=said((2, 3))), candidate(3, 0.3, promoted=said((1, 3)))], 2),
        # two at once, under one number: the newer version
        ([candidate(1, 0.5), candidate(2, 0.4, promoted=said((1, 3))), candidate(3, 0.3, promoted=said((1, 3)))], 3),
    ],
)
def test_the_title_passes_to_whoever_beats_its_holder_or_is_promoted(candidates: list[Candidate], version: int) -> None:
    for order in itertools.permutations(candidates):
        found = titles(order)
        assert found
        assert found.champion == version


def test_bounds_that_face_each_other_decide() -> None:
    """The difference of two intervals that are not symmetric, by hand."""
    first = Candidate(
        version=1, score=0.5, interval=(0.2, 0.53), metric="m", higher_is_better=True, data_digest="a"
    )  # fmt: skip
    second = Candidate(
        version=2, score=0.6, interval=(0.56, 0.9), metric="m", higher_is_better=True, data_digest="a"
    )  # fmt: skip
    lead = second.lead(first)
    assert lead.difference == pytest.approx(0.1)
    assert lead.low == pytest.approx(0.1 - 0.05)
    assert lead.high == pytest.approx(0.1 + math.hypot(0.3, 0.3))
    assert second.beats(first)
    assert not first.beats(second)


def test_a_return_goes_on_to_who_was_before() -> None:
    three = [candidate(1, 0.5), candidate(2, 0.6), candidate(3, 0.7)]
    assert titles(three) == Titles(3, 2, 2)
    back = [three[0], candidate(2, 0.6, promoted=said((1, 3, True))), three[2]]
    assert titles(back) == Titles(2, 3, 1)
    further = [candidate(1, 0.5, promoted=said((2, 3, True))), *back[1:]]
    assert titles(further) == Titles(1, 3, None)
    assert titles([*further, candidate(4, 0.55)]) == Titles(4, 3, 1)


def test_the_challenger_is_the_newest_that_a_sweep_recommends() -> None:
    found = [candidate(1, 0.5, sweep="s"), candidate(2, 0.5, sweep="s", role=False)]
    assert titles(found) == Titles(1, 2, None)
    found += [candidate(3, 0.4, sweep="t"), candidate(4, 0.4, sweep="t", role=False)]
    assert titles(found) == Titles(1, 3, None)


def test_nobody_is_champion_of_nothing() -> None:
    assert titles([]) is None


def test_a_promotion_reads_back_from_its_tag() -> None:
    told = said((1, 7), (12, 9, True))
    tags = {"score": "0.5", "interval_low": "0.4", "interval_high": "0.6", "metric": "m", "higher_is_better": "true"}
    tags |= {"data_digest": "a", "sweep": "s", "title_of_mine": "king", "title_0003": "unknown words"}
    assert read(7, {**tags, **dict(map(promotion_tag, told))}).promotions == told
