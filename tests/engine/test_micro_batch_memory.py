from __future__ import annotations

import pytest
import torch

from orchestrator.engine.micro_batch_memory import MicroBatchMemory
from orchestrator.engine.step import train_step
from orchestrator.engine.step_size import StepSize
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab, train

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_micro_batch_memory_splits_nothing_before_a_failure() -> None:
    assert MicroBatchMemory().fitting_size("lora", 16, 10**9, CPU) == StepSize()


@pytest.mark.parametrize(("tokens", "parts"), [(1, 1), (50, 1), (51, 2), (100, 2), (101, 4), (400, 8)])
def test_micro_batch_memory_halves_what_did_not_fit(tokens: int, parts: int) -> None:
    micro_batch_memory = MicroBatchMemory()
    micro_batch_memory.record_out_of_memory("lora", 100)
    assert micro_batch_memory.fitting_size("lora", 8, tokens, CPU) == StepSize(parts)
    assert micro_batch_memory.fitting_size("ia3", 8, tokens, CPU) == StepSize()


def test_micro_batch_memory_keeps_the_lowest_limit() -> None:
    micro_batch_memory = MicroBatchMemory()
    for tokens in (100, 20, 1, 0, 60):
        micro_batch_memory.record_out_of_memory("lora", tokens)
    assert micro_batch_memory.fitting_size("lora", 4, 4, CPU) == StepSize(4)


def test_micro_batch_memory_checkpoints_blocks_of_rows_that_did_not_fit() -> None:
    micro_batch_memory = MicroBatchMemory()
    micro_batch_memory.record_out_of_memory("lora", 8192)
    assert micro_batch_memory.fitting_size("lora", 2, 8192, CPU) == StepSize(2)
    assert micro_batch_memory.fitting_size("lora", 2, 16384, CPU) == StepSize(2, checkpointed=True)
    micro_batch_memory.record_out_of_memory("lora", 16384, checkpointed=True)
    assert micro_batch_memory.fitting_size("lora", 4, 65536, GPU) == StepSize(4, checkpointed=True)


def test_micro_batch_memory_begins_with_expected_limits() -> None:
    micro_batch_memory = MicroBatchMemory({"lora": 4096, "full": 1})
    assert micro_batch_memory.fitting_size("lora", 16, 16384, GPU) == StepSize(4)
    assert micro_batch_memory.fitting_size("full", 16, 16384, GPU) == StepSize(16, checkpointed=True)
    assert micro_batch_memory.fitting_size("ia3", 16, 16384, GPU) == StepSize()


def test_micro_batch_memory_tries_the_whole_batch_again_after_eight_trials() -> None:
    micro_batch_memory = MicroBatchMemory()
    micro_batch_memory.record_out_of_memory("lora", 100)
    micro_batch_memory.record_out_of_memory("ia3", 100)
    counts = [micro_batch_memory.fitting_size("lora", 8, 100, CPU).micro_batches for _ in range(10)]
    assert counts == [2] * 8 + [1, 1]
    assert micro_batch_memory.fitting_size("ia3", 8, 100, CPU).micro_batches == 2


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
        if self.params.batch_size / self._size.micro_batches > 2:
            failures.append(self.job.trial.study)
            raise torch.OutOfMemoryError("no room")
        return loss

    monkeypatch.setattr(TrialRun, "forward", limited_forward)
    first, second, other = begin("lora", 0), begin("lora", 1), begin("ia3", 0)
    assert train_step([first]) == train_step([second]) == train_step([other]) == []
    assert failures == ["mail/lora"] * 2 + ["mail/ia3"] * 2, "as it is, and once more with released memory"
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
