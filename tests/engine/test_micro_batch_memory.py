from __future__ import annotations

import pytest
import torch

from orchestrator.engine.micro_batch_memory import MicroBatchMemory
from orchestrator.engine.step import train_step
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab, train


def test_micro_batch_memory_splits_nothing_before_a_failure() -> None:
    assert MicroBatchMemory().micro_batch_count("lora", 10**9) == 1


@pytest.mark.parametrize(("tokens", "parts"), [(1, 1), (50, 1), (51, 2), (100, 2), (101, 4), (400, 8)])
def test_micro_batch_memory_halves_what_did_not_fit(tokens: int, parts: int) -> None:
    micro_batch_memory = MicroBatchMemory()
    micro_batch_memory.record_out_of_memory("lora", 100)
    assert micro_batch_memory.micro_batch_count("lora", tokens) == parts
    assert micro_batch_memory.micro_batch_count("ia3", tokens) == 1


def test_micro_batch_memory_keeps_the_lowest_limit() -> None:
    micro_batch_memory = MicroBatchMemory()
    for tokens in (100, 20, 1, 0, 60):
        micro_batch_memory.record_out_of_memory("lora", tokens)
    assert micro_batch_memory.micro_batch_count("lora", 4) == 4


def test_micro_batch_memory_helps_the_next_trial_of_the_method(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    micro_batch_memory, forward, failures = MicroBatchMemory(), TrialRun.forward, []

    def begin(method: str, number: int) -> TrialRun:
        return TrialRun(
            lab.job(method, number, batch_size=4),
            lab.backbone,
            lab.dataset,
            lab.training,
            micro_batch_memory=micro_batch_memory,
        )

    def limited_forward(self: TrialRun) -> torch.Tensor:
        loss = forward(self)
        if self.params.batch_size / self._micro_batches > 2:
            failures.append(self.job.trial)
            raise torch.OutOfMemoryError("no room")
        return loss

    monkeypatch.setattr(TrialRun, "forward", limited_forward)
    first, second, other = begin("lora", 0), begin("lora", 1), begin("ia3", 0)
    assert train_step([first]) == train_step([second]) == train_step([other]) == []
    assert failures == [first.job.trial, other.job.trial]
    assert {run.measurements["micro_batches"] for run in (first, second, other)} == {2}


def test_micro_batch_memory_leaves_training_results_unchanged(lab: Lab) -> None:
    micro_batch_memory = MicroBatchMemory()
    micro_batch_memory.record_out_of_memory("lora", 2)
    split = TrialRun(
        lab.job("lora", dropout=0.0), lab.backbone, lab.dataset, lab.training, micro_batch_memory=micro_batch_memory
    )
    full = TrialRun(lab.job("lora", dropout=0.0), lab.backbone, lab.dataset, lab.training)
    for _ in range(3):
        assert train_step([split]) == []
    train(full, 3)
    assert split.measurements["micro_batches"] > 2
    state = dict(full.attached.trainable())
    for name, parameter in split.attached.trainable().items():
        torch.testing.assert_close(parameter, state[name], rtol=1e-4, atol=1e-6)
