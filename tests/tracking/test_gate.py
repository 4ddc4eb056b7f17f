import itertools

import pytest

from orchestrator.tracking.gate import Candidate, champion


def candidate(version: int, score: float, *, data: str = "a", metric: str = "macro_f1", up: bool = True) -> Candidate:
    return Candidate(version, score, metric, up, data)


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
    ],
)
def test_the_title_passes_to_whoever_beats_its_holder(candidates: list[Candidate], version: int) -> None:
    for order in itertools.permutations(candidates):
        holder = champion(order)
        assert holder
        assert holder.version == version


def test_nobody_is_champion_of_nothing() -> None:
    assert champion([]) is None
