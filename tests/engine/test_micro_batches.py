"""A batch in parts against the batch as a whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.engine.micro_batches import split_micro_batches
from orchestrator.engine.step import train_step
from orchestrator.engine.step_size import StepSize
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks.causal_lm import CausalLM
from orchestrator.tasks.classification import Classification

from .conftest import Lab, equal, state, train


def test_micro_batches_are_weighted_by_their_labels() -> None:
    labels = torch.tensor([[5, 6, -100], [-100, 7, 8], [-100, -100, 9], [-100, -100, -100]])
    batch = {"input_ids": torch.arange(12).reshape(4, 3), "labels": labels}
    micro_batches = list(split_micro_batches(batch, 2, CausalLM().loss_terms))
    assert [weight for _, weight in micro_batches] == [3 / 4, 1 / 4]
    assert torch.equal(torch.cat([part["input_ids"] for part, _ in micro_batches]), batch["input_ids"])
    assert [weight for _, weight in split_micro_batches(batch, 4, CausalLM().loss_terms)] == [1 / 4, 2 / 4, 1 / 4], (
        "nothing is learned from the last row"
    )


def test_micro_batches_of_a_classifier_are_weighted_by_rows() -> None:
    batch = {"input_ids": torch.zeros(5, 3, dtype=torch.long), "labels": torch.arange(5)}
    assert [weight for _, weight in split_micro_batches(batch, 2, Classification().loss_terms)] == [3 / 5, 2 / 5]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_micro_batches_train_like_the_whole_batch(make_lab: Callable[[str], Lab], kind: str) -> None:
    lab = make_lab(kind)
    full, split = (lab.run("lora", batch_size=5, dropout=0.0) for _ in range(2))
    split._resize(StepSize(2))
    for _ in range(3):
        assert train_step([full]) == train_step([split]) == []
    assert split.measurements["micro_batches"] == 2
    for name, value in state(full).items():
        torch.testing.assert_close(state(split)[name], value, rtol=1e-3, atol=2e-3, msg=name)


def test_micro_batches_mix_with_whole_batches_in_a_pack(lab: Lab) -> None:
    def trials() -> list[TrialRun]:
        runs = [lab.run("lora", 0, batch_size=4), lab.run("ia3", 1, batch_size=5), lab.run("lora", 2, batch_size=3)]
        runs[1]._resize(StepSize(4))
        return runs

    alone, together = trials(), trials()
    for _ in range(3):
        assert [train_step([run]) for run in alone] == [[], [], []]
        assert train_step(together) == []
    for alone_run, packed_run in zip(alone, together, strict=True):
        assert packed_run.step == 3
        for name, value in state(alone_run).items():
            torch.testing.assert_close(state(packed_run)[name], value, rtol=1e-4, atol=1e-6, msg=name)


class ShortOfMemory:
    """Room for so many rows of a trial at once, and for no second trial beside."""

    def __init__(self, rows: int, error: Exception) -> None:
        self.rows, self.error = rows, error
        self.forward = TrialRun.forward

    def __call__(self, run: TrialRun, **options: bool) -> torch.Tensor:
        loss = self.forward(run, **options)
        if run.params.batch_size / run._size.micro_batches > self.rows:
            raise self.error
        return loss


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")],
    ids=["gpu", "cpu"],
)
def test_out_of_memory_halves_the_micro_batch(lab: Lab, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    reference, short, neighbour = (lab.run("lora", 0, batch_size=8, dropout=0.0) for _ in range(3))
    train(reference, 2)
    monkeypatch.setattr(TrialRun, "forward", _method(ShortOfMemory(2, error)))
    assert train_step([short, neighbour]) == []
    assert train_step([short, neighbour]) == []
    assert short.measurements["micro_batches"] >= 4
    assert neighbour.measurements["micro_batches"] >= 4
    for name, value in state(reference).items():
        torch.testing.assert_close(state(short)[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_micro_batch_of_one_row_that_does_not_fit_fails(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run = lab.run("lora", batch_size=4)
    before = state(run)
    monkeypatch.setattr(TrialRun, "forward", _method(ShortOfMemory(0, torch.OutOfMemoryError("no room"))))
    ((failed, error),) = train_step([run])
    assert (failed, str(error)) == (run, "no room")
    assert run.step == 0
    assert equal(state(run), before)


def test_micro_batch_count_is_saved_with_the_trial(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("lora", batch_size=4)
    run._resize(StepSize(4))
    assert train_step([run]) == []
    folder = tmp_path / "parts"
    folder.mkdir()
    run.save(folder, resumable=True)
    restored = lab.run("lora", batch_size=4)
    restored.restore(folder)
    assert train_step([restored]) == []
    assert restored.measurements["micro_batches"] == 4


def _method(short: ShortOfMemory) -> Callable[..., torch.Tensor]:
    return lambda run, **options: short(run, **options)
