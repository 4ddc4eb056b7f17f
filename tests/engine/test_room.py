from __future__ import annotations

import pytest
import torch

from orchestrator.engine.micro_batch_memory import MicroBatchMemory
from orchestrator.engine.step import step
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab, train


def test_everything_fits_until_something_did_not() -> None:
    assert MicroBatchMemory().parts("lora", 10**9) == 1


@pytest.mark.parametrize(("tokens", "parts"), [(1, 1), (50, 1), (51, 2), (100, 2), (101, 4), (400, 8)])
def test_half_of_what_was_too_much_may_fit(tokens: int, parts: int) -> None:
    micro_batch_memory = MicroBatchMemory()
    micro_batch_memory.tell("lora", 100)
    assert micro_batch_memory.parts("lora", tokens) == parts
    assert micro_batch_memory.parts("ia3", tokens) == 1


def test_what_was_learned_is_not_forgotten() -> None:
    micro_batch_memory = MicroBatchMemory()
    for tokens in (100, 20, 1, 0, 60):
        micro_batch_memory.tell("lora", tokens)
    assert micro_batch_memory.parts("lora", 4) == 4


def test_the_next_trial_of_the_method_begins_in_parts_that_fit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    micro_batch_memory, forward, failures = MicroBatchMemory(), TrialRun.forward, []

    def begin(method: str, number: int) -> TrialRun:
        return TrialRun(
            lab.job(method, number, batch_size=4),
            lab.backbone,
            lab.rows,
            lab.training,
            micro_batch_memory=micro_batch_memory,
        )

    def short(self: TrialRun) -> torch.Tensor:
        loss = forward(self)
        if self.params.batch_size / self._micro_batches > 2:
            failures.append(self.job.trial)
            raise torch.OutOfMemoryError("no room")
        return loss

    monkeypatch.setattr(TrialRun, "forward", short)
    first, second, other = begin("lora", 0), begin("lora", 1), begin("ia3", 0)
    assert step([first]) == step([second]) == step([other]) == []
    assert failures == [first.job.trial, other.job.trial]
    assert {run.measurements["micro_batches"] for run in (first, second, other)} == {2}


def test_parts_that_were_learned_give_the_losses_of_the_whole(lab: Lab) -> None:
    micro_batch_memory = MicroBatchMemory()
    micro_batch_memory.tell("lora", 2)
    parted = TrialRun(
        lab.job("lora", dropout=0.0), lab.backbone, lab.rows, lab.training, micro_batch_memory=micro_batch_memory
    )
    whole = TrialRun(lab.job("lora", dropout=0.0), lab.backbone, lab.rows, lab.training)
    for _ in range(3):
        assert step([parted]) == []
    train(whole, 3)
    assert parted.measurements["micro_batches"] > 2
    state = dict(whole.attached.trainable())
    for name, parameter in parted.attached.trainable().items():
        torch.testing.assert_close(parameter, state[name], rtol=1e-4, atol=1e-6)
