"""Which trials step together, told without a single step."""

from dataclasses import dataclass

import pytest
import torch

from orchestrator.engine.pack_sizes import SAMPLES, PackSizes, default_pack_size


@dataclass
class Run:
    tokens: int = 64
    alone_bytes: float = 0.0


def sizes(packs: PackSizes, runs: list[Run]) -> list[int]:
    return [len(group) for group in packs.groups(runs)]


def play(packs: PackSizes, runs: list[Run], cost: dict[int, float], rounds: int) -> list[int]:
    """The size of the first group of every round; a group's step takes ``cost`` seconds for each of its trials."""
    sizes_of_rounds = []
    for _ in range(rounds):
        groups = packs.groups(runs)
        sizes_of_rounds.append(len(groups[0]))
        packs.record_round(sum(len(group) * cost[len(group)] for group in groups))
    return sizes_of_rounds


def test_pack_sizes_group_by_a_fixed_number() -> None:
    packs = PackSizes(3, measured=False)
    assert sizes(packs, [Run() for _ in range(8)]) == [3, 3, 2]
    assert sizes(packs, [Run()]) == [1]
    assert packs.groups([]) == []


def test_pack_sizes_give_a_new_trial_its_first_step_alone() -> None:
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
def test_pack_sizes_time_each_size_and_keep_the_fastest(cost: dict[int, float], best: int) -> None:
    sizes_of_rounds = play(PackSizes(8, measured=True), [Run() for _ in range(8)], cost, 3 * SAMPLES + 4)
    assert sorted(sizes_of_rounds[: 3 * SAMPLES]) == sorted([1, 4, 8] * SAMPLES)
    assert sizes_of_rounds[:3] != [sizes_of_rounds[0]] * 3, "in turns, so that what drifts drifts for all"
    assert set(sizes_of_rounds[3 * SAMPLES :]) == {best}


def test_pack_sizes_measure_other_batch_sizes_separately() -> None:
    packs = PackSizes(2, measured=True)
    play(packs, [Run(64), Run(64)], {1: 1.0, 2: 0.5}, 2 * SAMPLES)
    large = play(packs, [Run(4096), Run(4096)], {1: 1.0, 2: 1.5}, 2 * SAMPLES + 2)
    assert large[2 * SAMPLES :] == [1, 1]
    assert play(packs, [Run(70), Run(70)], {1: 1.0, 2: 0.5}, 2) == [2, 2], "what is known stays known"


def test_pack_sizes_ignore_rounds_with_failures() -> None:
    packs = PackSizes(2, measured=True)
    for _ in range(4 * SAMPLES):
        packs.groups([Run(), Run()])  # somebody failed, nothing is noted
    assert sorted(play(packs, [Run(), Run()], {1: 1.0, 2: 0.5}, 2 * SAMPLES)) == sorted([1, 2] * SAMPLES)


def test_pack_sizes_respect_free_memory() -> None:
    packs = PackSizes(8, measured=False, activation_bytes=lambda: 3.5e9)
    assert sizes(packs, [Run(alone_bytes=1e9) for _ in range(8)]) == [3, 3, 2]
    assert sizes(packs, [Run(alone_bytes=9e9) for _ in range(2)]) == [1, 1]


@pytest.mark.parametrize(
    ("tokens", "gpu", "offered"), [(128, False, 8), (129, False, 1), (2048, True, 8), (2049, True, 1)]
)
def test_default_pack_size_depends_on_the_device(tokens: int, gpu: bool, offered: int) -> None:
    assert default_pack_size([{"batch_size": 1}], tokens, None, gpu) == offered


@pytest.mark.parametrize(("own_gpu", "fitting"), [(True, 9), (False, 5)])
def test_pack_sizes_count_what_pytorch_keeps_as_free(
    own_gpu: bool, fitting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a large step: 2 GB free for CUDA, 8 GB that PyTorch has reserved and not in use; a trial takes 1 GB."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2e9, 80e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 20e9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 12e9)
    packs = PackSizes(16, measured=False, device=torch.device("cuda", 0), own_gpu=own_gpu)
    sizes = [len(group) for group in packs.groups([Run(tokens=8, alone_bytes=1e9) for _ in range(16)])]
    assert sizes[0] == fitting


@pytest.mark.parametrize(
    ("batches", "max_length", "trials", "offered"),
    [
        ([4, 4, 4], 16, None, 8),
        ([4, 4, 4], 16, 64, 8),
        ([4, 4, 4], 16, 16, 2),
        ([4, 4, 4], 16, 12, 1),  # what is under way cannot be stopped early by what is not there yet
        ([4, 4, 4], 16, 1, 1),
        ([8, 8, 16], 16, None, 8),
        ([8, 8, 16], 32, None, 1),  # a batch of 256 tokens fills a core
        ([16], 128, 1000, 1),
        ([], 64, None, 8),
    ],
)
def test_default_pack_size(batches: list[int], max_length: int, trials: int | None, offered: int) -> None:
    defaults: list[dict[str, object]] = [{"batch_size": size} for size in batches]
    assert default_pack_size([*defaults, {"template": "label"}], max_length, trials) == offered
