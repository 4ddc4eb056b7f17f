"""What the workers of a lane say to one another, and what they hear when one of them is gone."""

from pathlib import Path

import pytest
import torch

from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.engine.ranks import LostWorkerError, Ranks
from orchestrator.lanes.broker import Signal
from orchestrator.lanes.messages import read, written

from .second_worker_of_ranks import LONG, conversation
from .two_workers import second_worker


def test_two_ranks_hear_the_same_until_one_is_gone(tmp_path: Path) -> None:
    with second_worker("second_worker_of_ranks", tmp_path) as ranks:
        mine, others = ranks.all_gather_object(conversation(ranks))
        aligned = [[[1.0] * 3] * 2, [0.0, 1.0, 2.0, 3.0]]
        both: list[object] = [{"from": 0}, LONG + "0", [["rank", 0], ["rank", 1]], [0, 3000], aligned, [2.0, 1.0]]
        assert mine[:6] == both
        assert others[:6] == both
        assert mine[6:8] == ["None", "worker 1: ValueError: mine"]
        assert others[6:8] == ["None", "mine"]
        assert mine[8:] == ["ValueError('of rank 0')", "OtherWorkerError('worker 1: ValueError: of rank 1')", "fine"]
        assert others[8:] == ["OtherWorkerError('worker 0: ValueError: of rank 0')", "ValueError('of rank 1')", "fine"]
        with pytest.raises(LostWorkerError, match="is gone"):
            ranks.broadcast_object("anybody there?") and ranks.all_gather_object("or not?")


def test_a_lane_of_one_worker_asks_nobody() -> None:
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


@pytest.mark.parametrize(
    "heard",
    [
        None,
        Signal.RETIRE,
        Signal.REJOIN,
        Job(trial=TrialKey("mail/compose:prefix+lora", 3), params={"a": [1, None]}, seed=4, start=0, stop=5, total=9),
        Job(
            trial=TrialKey("mail/lora", 3), params={}, seed=4, start=1, stop=5, total=9,
            checkpoint="checkpoints/x", split="test", retraining=2,
        ),
    ],
)  # fmt: skip
def test_what_was_heard_is_passed_on_as_it_was(message: Job | Signal | None) -> None:
    assert read(written(message)) == message
