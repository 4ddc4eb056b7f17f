"""Which trials step together, told without a single step."""

from dataclasses import dataclass

import pytest

from orchestrator.engine.pack_sizes import SAMPLES, PackSizes


@dataclass
class Run:
    tokens: int = 64
    alone_bytes: float = 0.0


def sizes(packs: PackSizes, runs: list[Run]) -> list[int]:
    return [len(group) for group in packs.groups(runs)]


def play(packs: PackSizes, runs: list[Run], cost: dict[int, float], rounds: int) -> list[int]:
    """The size of the first group of every round; a group's step takes ``cost`` seconds for each of its trials."""
    found = []
    for _ in range(rounds):
        groups = packs.groups(runs)
        found.append(len(groups[0]))
        packs.note(sum(len(group) * cost[len(group)] for group in groups))
    return found


def test_asked_for_a_number_it_groups_so_many() -> None:
    packs = PackSizes(3, measured=False)
    assert sizes(packs, [Run() for _ in range(8)]) == [3, 3, 2]
    assert sizes(packs, [Run()]) == [1]
    assert packs.groups([]) == []


def test_a_newcomer_s_first_step_is_its_own() -> None:
    runs = [Run(), Run(tokens=0), Run()]
    assert PackSizes(8, measured=False).groups(runs) == [[runs[1]], [runs[0], runs[2]]]


@pytest.mark.parametrize(
    ("cost", "best"),
    [
        ({1: 1.0, 4: 0.8, 8: 0.7}, 8),
        ({1: 1.0, 4: 0.7, 8: 0.8}, 4),
        ({1: 1.0, 4: 1.1, 8: 1.2}, 1),
        ({1: 1.0, 4: 0.99, 8: 0.98}, 1),  # too little to be more than chance
    ],
)
def test_it_takes_turns_and_stays_with_what_was_fastest(cost: dict[int, float], best: int) -> None:
    found = play(PackSizes(8, measured=True), [Run() for _ in range(8)], cost, 3 * SAMPLES + 4)
    assert sorted(found[: 3 * SAMPLES]) == sorted([1, 4, 8] * SAMPLES)
    assert found[:3] != [found[0]] * 3, "in turns, so that what drifts drifts for all"
    assert set(found[3 * SAMPLES :]) == {best}


def test_other_batches_are_measured_anew() -> None:
    packs = PackSizes(2, measured=True)
    play(packs, [Run(64), Run(64)], {1: 1.0, 2: 0.5}, 2 * SAMPLES)
    large = play(packs, [Run(4096), Run(4096)], {1: 1.0, 2: 1.5}, 2 * SAMPLES + 2)
    assert large[2 * SAMPLES :] == [1, 1]
    assert play(packs, [Run(70), Run(70)], {1: 1.0, 2: 0.5}, 2) == [2, 2], "what is known stays known"


def test_rounds_with_newcomers_or_failures_are_no_measurement() -> None:
    packs = PackSizes(2, measured=True)
    for _ in range(4 * SAMPLES):
        packs.groups([Run(), Run()])  # somebody failed, nothing is noted
    assert sorted(play(packs, [Run(), Run()], {1: 1.0, 2: 0.5}, 2 * SAMPLES)) == sorted([1, 2] * SAMPLES)


def test_a_group_is_no_larger_than_memory_allows() -> None:
    packs = PackSizes(8, measured=False, micro_batch_memory=lambda: 3.5e9)
    assert sizes(packs, [Run(alone_bytes=1e9) for _ in range(8)]) == [3, 3, 2]
    assert sizes(packs, [Run(alone_bytes=9e9) for _ in range(2)]) == [1, 1]
