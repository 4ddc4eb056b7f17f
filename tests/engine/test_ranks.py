"""What the workers of a lane say to one another, and what they hear when one of them is gone."""

from pathlib import Path

import pytest
import torch

from orchestrator.engine.ranks import LostWorkerError, Ranks

from .second_worker_of_ranks import LONG, exchange_values
from .two_workers import second_worker


def test_ranks_exchange_values_until_a_worker_dies(tmp_path: Path) -> None:
    with second_worker("tests.engine.second_worker_of_ranks", tmp_path) as ranks:
        first, second = ranks.all_gather_object(exchange_values(ranks))
        aligned = [[[1.0] * 3] * 2, [0.0, 1.0, 2.0, 3.0]]
        common: list[object] = [{"from": 0}, LONG + "0", [["rank", 0], ["rank", 1]], [0, 3000], aligned, [2.0, 1.0]]
        assert first[:6] == common
        assert second[:6] == common
        assert first[6:8] == ["None", "worker 1: ValueError: mine"]
        assert second[6:8] == ["None", "mine"]
        assert first[8:] == ["ValueError('of rank 0')", "OtherWorkerError('worker 1: ValueError: of rank 1')", "fine"]
        assert second[8:] == ["OtherWorkerError('worker 0: ValueError: of rank 0')", "ValueError('of rank 1')", "fine"]
        with pytest.raises(LostWorkerError, match="is gone"):
            ranks.broadcast_object("anybody there?") and ranks.all_gather_object("or not?")


def test_ranks_of_one_worker_return_at_once() -> None:
    alone, value = Ranks(), object()
    assert alone.is_rank_zero
    assert alone.broadcast_object(value) is value
    assert alone.all_gather_object(value) == [value]
    assert alone.sync_error(error := ValueError()) is error
    tensor = torch.ones(2)
    alone.all_reduce(tensor)
    alone.broadcast_parameters([tensor])
    assert tensor.tolist() == [1.0, 1.0]
    with pytest.raises(ZeroDivisionError):
        alone.run_on_all_ranks(lambda: 1 / 0)
